"""A drawn bowel: textures of the mucosa, a tube with folds, a polyp of melted balls, and rays that march to them.

Points and directions are float32 arrays (3, n). A gap is positive in the lumen, and about the distance to the tissue.
"""

import numpy as np
from scipy import fft, ndimage

F = np.float32
TILE = 256  # texels along one side of a texture, which repeats
ANGLES, DEPTHS, START, STEP = 128, 512, F(-2.5), F(10 / 512)  # the table of the tube's radius: around, along, from, by


def noise(rng, shape, slope, low, high):
    """Noise of mean 0 and variance 1 that repeats: waves of `low` to `high` periods, amplitude frequency^-slope."""
    down, right = np.fft.fftfreq(shape[0], 1 / shape[0])[:, None], np.fft.rfftfreq(shape[1], 1 / shape[1])
    frequency = np.hypot(down, right)
    amplitude = np.where((frequency >= low) & (frequency <= high), np.maximum(frequency, 1) ** -slope, 0)
    waves = fft.irfft2(fft.rfft2(rng.standard_normal(shape, F)) * amplitude.astype(F), s=shape)
    return waves / waves.std()


def fetch(tables, u, v):
    """Values (k, n) of k tables (k, h, w) that repeat, h and w powers of 2, u cells down and v to the right."""
    h, w = tables.shape[1:]
    above, left = np.floor(u), np.floor(v)
    i, j = above.astype(np.int32), left.astype(np.int32)
    i, i1, j, j1 = (i & h - 1) * w, (i + 1 & h - 1) * w, j & w - 1, j + 1 & w - 1
    u, v, flat = u - above, v - left, tables.reshape(len(tables), -1)
    upper = flat.take(i + j, 1) * (1 - v) + flat.take(i + j1, 1) * v
    lower = flat.take(i1 + j, 1) * (1 - v) + flat.take(i1 + j1, 1) * v
    return upper + (lower - upper) * u


def vessels(rng, trees=40, steps=130):
    """Vessels seen through the mucosa (TILE, TILE), 0 to 1.5: walks that turn slowly, fork and grow thinner."""
    place, head = rng.random((trees, 2)) * TILE, rng.random(trees) * 2 * np.pi
    width, turn = rng.choice([1.0, 0.6, 0.5], trees), np.zeros(trees)
    drawn = np.zeros((TILE, TILE), F)
    for _ in range(steps):
        turn = 0.8 * turn + rng.normal(0, 0.1, len(head))
        head = head + turn
        place = place + 1.2 * np.stack([np.sin(head), np.cos(head)], 1)
        np.maximum.at(drawn, tuple((place % TILE).astype(int).T), width)
        forks = (rng.random(len(head)) < 0.06) & (width > 0.3)
        side = rng.choice([-1, 1], forks.sum()) * rng.uniform(0.4, 1.0, forks.sum())
        width = np.where(forks, 0.85, 0.997) * width
        place, head = np.concatenate([place, place[forks]]), np.concatenate([head, head[forks] + side])
        turn, width = np.concatenate([turn, 0 * side]), np.concatenate([width, 0.7 * width[forks]])
        kept = width > 0.2
        place, head, turn, width = place[kept], head[kept], turn[kept], width[kept]
    thick = ndimage.gaussian_filter(np.where(drawn > 0.65, drawn, 0), 1.4, mode="wrap")
    return np.minimum(2 * ndimage.gaussian_filter(drawn, 0.7, mode="wrap") + 2 * thick, 1.5)


def _folds(rng):
    """Radius of the tube (ANGLES, DEPTHS): uneven, with half-moon folds across it, and closed at both ends."""
    angle = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False, dtype=F)[:, None]
    depth = np.arange(DEPTHS, dtype=F) * STEP + START
    uneven = noise(rng, (ANGLES, DEPTHS), 1.7, 1, 12)
    folds = np.zeros((ANGLES, DEPTHS), F)
    spacing, height, width = rng.uniform(0.4, 1.1), rng.uniform(0.15, 0.5), rng.uniform(0.08, 0.28)
    for at in START + spacing * rng.uniform(0.5, 1.5, 20).cumsum():
        one, three, lean = rng.uniform(0, 2 * np.pi, 3)
        arc = np.clip(0.4 + 0.65 * np.cos(angle - one) + 0.5 * np.cos(3 * angle - three), 0, 1.3)
        here = slice(*np.searchsorted(depth, [at - 0.9, at + 0.9]))
        away = depth[here] - F(at) - 0.15 * np.cos(angle - lean) - 0.08 * uneven[:, here]
        ridge = np.exp(-((away / (width * F(rng.uniform(0.7, 1.4)))) ** 2))
        folds[:, here] = np.maximum(folds[:, here], height * rng.uniform(0.5, 1.3) * arc * ridge)
    ripples = rng.uniform(0.001, 0.004) * noise(rng, (ANGLES, DEPTHS), 0.8, 8, 50)
    ends = 1 / ((1 + np.exp(2 * (depth - rng.uniform(3.5, 6)))) * (1 + np.exp(-8 * (depth + 2))))
    return ((1 + rng.uniform(0.05, 0.15) * uneven - folds - ripples) * ends).astype(F)


class Tube:
    """The bowel: along the third axis, bent, of radius about 1."""

    def __init__(self, rng):
        self.radius, self.bend = _folds(rng)[None], rng.normal(0, 0.1, (2, 1)).astype(F)
        blotches, grain = noise(rng, (TILE, TILE), 1.4, 1, 40), noise(rng, (TILE, TILE), 0.4, 12, 110)
        self.textures = np.stack([blotches, grain, vessels(rng)])

    def around(self, points):
        """Distance from the tube's axis and angle around it, (n,) each."""
        x, y = points[:2] - self.bend * points[2] ** 2
        return np.sqrt(x * x + y * y), np.arctan2(y, x)

    def gap(self, points):
        distance, angle = self.around(points)
        return fetch(self.radius, angle * F(ANGLES / 2 / np.pi), (points[2] - START) / STEP)[0] - distance


def _balls(rng, shape):
    """Centres (k, 3) and radii (k,) of the balls that melt into a polyp of radius 1 on the ground; its squash (3,)."""
    wide, spread = rng.uniform(0.65, 1), rng.uniform(-0.65, 0.65, (7, 2))
    if shape == "dome":
        centres = [[0, 0, 0.1], *([*(0.7 * at), rng.uniform(0.1, 0.4)] for at in spread[:3])]
        return centres, [0.8, *rng.uniform(0.4, 0.65, 3)], (1, wide, rng.uniform(0.6, 1))
    if shape == "stalk":
        lean = rng.normal(0, 0.6, 2)
        stalk = [[*(lean * rise**1.3), 1.5 * rise] for rise in np.linspace(0, 1, 6)]
        head = [[*(lean + 0.6 * at), 1.5 + rng.uniform(-0.2, 0.3)] for at in spread[:2]]
        return stalk + head, [0.42, 0.3, 0.28, 0.28, 0.35, 0.7, 0.55, 0.5], (0.7, 0.7, 0.7)
    if shape == "flat":
        return [[0, 0, 0], *([*at, 0] for at in spread)], rng.uniform(0.35, 0.6, 8), (1.3, wide, rng.uniform(0.25, 0.5))
    lobes = [[*at, rng.uniform(0.1, 0.7)] for at in spread]
    return [[0, 0, 0], *lobes], [0.55, *rng.uniform(0.25, 0.5, 7)], (1, wide, rng.uniform(0.6, 1.1))


class Polyp:
    """Balls melted into one body, which stands on the wall of `tube` at `base`, along `normal`."""

    def __init__(self, rng, tube, base, normal, radius):
        shape = rng.choice(["dome", "stalk", "flat", "lobed"], p=[0.42, 0.18, 0.2, 0.2])
        self.tube, self.base, self.radius = tube, base[:, None], radius
        side = np.cross(normal, rng.standard_normal(3))
        side /= np.linalg.norm(side)
        self.axes = np.stack([side, np.cross(normal, side), normal]).astype(F)
        self.centres, self.radii, self.squash = (np.array(part, F) for part in _balls(rng, shape))
        reach = (np.sqrt((self.centres**2).sum(1)) + self.radii).max() * self.squash.max()
        self.reach, self.squash = F(1.2) * reach * radius, self.squash[:, None]
        self.sharp = F(10 if shape == "lobed" else 6)
        self.soft = F(rng.uniform(0.1, 0.35)) * radius * self.squash.min()
        self.waves, self.phases = rng.normal(0, 3, (3, 3)).astype(F), rng.uniform(0, 6, (3, 1)).astype(F)
        self.rough = F(rng.uniform(0.02, 0.08))

    def local(self, points):
        """The points in units of the radius, along two axes on the wall and one away from it."""
        return self.axes @ (points - self.base) / self.radius

    def body(self, points):
        """Positive outside the polyp, about the distance to it."""
        at = self.local(points) / self.squash
        at = at + self.rough * np.sin(self.waves @ at + self.phases)
        melted = F(1e-30)
        for centre, radius in zip(self.centres, self.radii, strict=True):
            away = at - centre[:, None]
            melted = melted + np.exp(self.sharp * (radius - np.sqrt((away * away).sum(0))))
        return -np.log(melted) * (self.radius * self.squash.min() / self.sharp)

    def gap(self, points):
        """Wall and polyp together, with the groove between them filled a little."""
        wall, body = self.tube.gap(points), self.body(points)
        return np.minimum(wall, body) - self.soft * np.exp(-np.abs(wall - body) / self.soft)


def march(gap, origin, rays, start, stop, steps=80):
    """How far along each ray the first surface is, (n,): where `gap` turns negative, or else at `stop`."""
    at = np.array(np.broadcast_to(start, rays.shape[1]), F)
    stop, last, live = np.array(np.broadcast_to(stop, at.shape), F), np.zeros_like(at), np.arange(len(at))
    here, towards, end = at, rays, stop
    for _ in range(steps):
        free = gap(origin + here * towards)
        going = np.flatnonzero((free > 0) & (here < end))
        if not going.size:
            break
        live, here, free, end = live[going], here[going], free[going], end[going]
        towards = towards.take(going, 1)
        step = np.maximum(F(0.7) * free, F(0.02) * here + F(0.003))
        here = here + step
        at[live], last[live] = here, step
    for _ in range(4):  # halve the last step, back and forth
        last *= F(0.5)
        at += np.where(gap(origin + at * rays) > 0, last, -last)
    return np.minimum(at, stop)


def normals(gap, points, width):
    """Unit vectors that point from the tissue into the lumen."""
    here = gap(points)
    return unit(np.stack([gap(points + F(width) * axis[:, None]) - here for axis in np.eye(3, dtype=F)]))


def unit(vectors):
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(0)), F(1e-9))


def turned(onto, towards):
    """The rotation (3, 3) that turns the unit vector `onto` into `towards`."""
    x, y, z = np.cross(onto, towards)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return (np.eye(3) + cross + cross @ cross / (1 + onto @ towards)).astype(F)
