"""How many weights of a trained network may be set to zero, with a guarantee?

Learn then Test applied to magnitude pruning: every pruning ratio is tested for "risk > alpha" with a finite-sample
p-value, a multiple-testing procedure keeps the chance of any false certificate below delta, and the largest certified
ratio is the answer. Start with `calibration.calibrate`, or with the notebooks: `confprune run`.
"""

__version__ = "0.1.0"
