"""What sets the frames of the six centres of PolypGen apart, as it is drawn in phantom frames."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Centre:
    """What sets the frames of one centre apart."""

    empty: float  # share of frames without a polyp
    frames: int  # of one video
    extent: tuple  # mean and sd of log(the polyp's share of the frame)
    colour: tuple  # mean red, green, blue
    spread: tuple  # sd between videos of the logarithms of the brightness and of red / green
    blur: float  # sd in pixels of a 128 x 128 frame
    contrast: float  # exponent of the tone curve
    chances: tuple  # that a video has dye, a tool, a transparent cap, boxes on the screen, text
    background: tuple


# Measured on the 1,537 single frames of PolypGen at 128 x 128 (colours inside the visible field, grey levels 0..255):
# share of empty masks, frames a group, moments of log(share of the polyp), means and spreads of the colours, background
# and, in BORDERS, the visible fields. Blur and contrast were then set so that the mean gradient, the fine detail and
# the spread of the brightness come out as on the real frames; the chances were counted by eye.
CENTRES = {
    1: Centre(0.02, 2, (-2.79, 1.14), (170, 106, 73), (0.06, 0.08), 0.57, 0.97, (0.03, 0.02, 0, 0, 0), (0, 0, 0)),
    2: Centre(0.103, 7, (-2.79, 0.94), (152, 96, 70), (0.15, 0.13), 0.63, 1.2, (0.4, 0.3, 0, 0.15, 0.8), (1, 1, 1)),
    3: Centre(0.002, 9, (-2.92, 1.05), (162, 104, 81), (0.1, 0.08), 0.6, 0.85, (0.04, 0.05, 0, 0, 1), (16, 16, 16)),
    4: Centre(0.36, 7, (-3.28, 1.39), (161, 101, 82), (0.12, 0.09), 0.58, 0.95, (0, 0.03, 0.3, 0.9, 0), (16, 16, 16)),
    5: Centre(0.01, 5, (-3.45, 1.27), (151, 98, 70), (0.14, 0.11), 0.62, 0.9, (0.1, 0.2, 0, 0.45, 0), (14, 16, 13)),
    6: Centre(0.06, 7, (-3.12, 1.22), (168, 115, 71), (0.18, 0.12), 0.65, 1.15, (0.03, 0.1, 0, 0, 0.4), (0, 0, 0)),
}
# The visible fields of a centre: left, right, top, bottom as shares of the frame; |u| + |v| at its cut corners; radius.
BORDERS: dict[int, list[tuple]] = {
    1: [(0, 1, 0, 1, 1.62, 9)],
    2: [(0.05, 0.98, -0.03, 1.03, 1.6, 1.12)] * 3 + [(0.23, 0.93, -0.03, 1.03, 1.6, 1.1)],
    3: [(0.06, 0.98, 0, 1, 1.6, 1.25), (0.09, 0.92, 0.03, 0.97, 1.7, 9)],
    4: [(0.28, 0.985, -0.02, 1.02, 1.5, 9), (0.235, 0.94, -0.02, 1.02, 1.5, 9)],
    5: [(0.345, 0.985, -0.01, 1.01, 1.65, 9)] * 3 + [(0.345, 0.97, 0.08, 0.94, 1.7, 9)],
    6: [(0.28, 0.975, 0, 1, 1.6, 1.08)] * 2 + [(0.09, 0.97, 0, 1, 1.75, 9), (0.4, 0.93, 0.02, 0.98, 1.7, 9)],
}
