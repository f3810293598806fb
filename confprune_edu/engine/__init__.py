"""How a loss table is made fast. README.md in this folder tells each trick, and what it is worth."""
