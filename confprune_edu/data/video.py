"""A drawn video of a colonoscopy, and its frames.

A scene is a bent tube with folds and a polyp of melted balls. A ray for each pixel marches to the first surface, a lamp
at the tip of the scope lights it, and the video processor exposes, blurs, decorates and compresses the picture.
"""

import numpy as np
from scipy import fft, ndimage

from confprune_edu.data.bowel import TILE, F, Polyp, Tube, fetch, march, noise, normals, turned, unit
from confprune_edu.data.centres import BORDERS, CENTRES

TEXELS = F(2 * TILE / (2 * np.pi))  # texels in a unit of length on the wall, whose radius is about 1
ASPECT, LENS = F(1.25), F(0.72)  # width to height of what the scope sees; radians between its centre and upper edge
TISSUE, BLOOD = np.array([[[0.9], [0.62], [0.45]], [[0.2], [0.85], [0.8]]], F)  # red, green, blue: sent back; absorbed
STOOL, DYED = np.array([[[0.8], [0.55], [0.08]], [[0.36], [0.72], [0.95]]], F)


class Video:
    """What the frames of a video share: one bowel, one polyp, one scope and the habits of the centre."""

    def __init__(self, rng, centre):
        self.centre, borders = CENTRES[centre], BORDERS[centre]
        self.border, self.tube = borders[rng.integers(len(borders))], Tube(rng)
        self.dye, self.tool, self.cap, self.box, self.text = rng.random(5) < self.centre.chances
        self.marks, self.stool = rng.random((100, 100)) < 0.6, rng.random() < 0.2
        self.veins, self.wet, self.fine = F(rng.choice([0.1, 0.4, 0.9])), rng.uniform(0.03, 0.2), rng.integers(10, 24)
        self.tint, self.pale, self.pits = rng.normal(0, 0.2), rng.uniform(1, 1.35), rng.uniform(0.02, 0.1)
        bright, warm = rng.normal(0, self.centre.spread)
        mean = np.array(self.centre.colour) / 255 * np.exp(bright + warm * np.array([0.6, -0.4, -1.1]))
        self.mean = mean.clip(0.1, 0.85).astype(F)
        self.blur = self.centre.blur * np.exp(rng.normal(0, 0.25))
        places = np.stack([*rng.uniform(-0.6, 0.6, (2, 16)), np.zeros(16)]).astype(F)
        self.origin = places[:, [np.minimum(self.tube.gap(places), 0.35).argmax()]]  # the first with room to see
        tilt, way = rng.uniform(0, 1.15), rng.uniform(0, 2 * np.pi)
        ahead = np.array([np.sin(tilt) * np.cos(way), np.sin(tilt) * np.sin(way), np.cos(tilt)])
        self.camera = turned(ahead, np.array([0, 0, 1]))  # rows: right, down, forward
        self.aim, self.polyp = self._grown(rng)

    def _grown(self, rng):
        """A place in the field, and the polyp on the wall there, as large as its share of the frame asks for."""
        u, v, tissue, _ = self.field(32)
        tissue = ndimage.binary_erosion(tissue, iterations=2)
        rays = self.camera.T @ rays_through(u[tissue], v[tissue])
        far = march(self.tube.gap, self.origin, rays, 0.05, 30)
        points = self.origin + far * rays
        inward = normals(self.tube.gap, points, 0.06)
        share, (x0, x1, y0, y1, *_) = np.exp(np.clip(rng.normal(*self.centre.extent), -6, -0.7)), self.border
        sine = np.sin(LENS * min(np.sqrt(3.5 * share * ASPECT / (x1 - x0) / (y1 - y0)), 1.25))
        radius = far * F(sine / (1 + 0.6 * sine))
        depths = np.full(u.shape, np.inf, F)
        depths[tissue] = far
        hidden = (depths > 1.4 * ndimage.minimum_filter(depths, 3))[tissue] * (rng.random() < 0.25)  # behind a fold
        cost = 8 * np.maximum(radius - 0.9, 0) + 40 * np.maximum(0.025 - radius, 0) + 2 * np.maximum(far - 3, 0)
        cost += 2 * np.maximum((inward * rays).sum(0) + 0.35, 0) - 3 * hidden + rng.random(len(far))
        k = cost.argmin()
        return np.array([u[tissue][k], v[tissue][k]]), Polyp(rng, self.tube, points[:, k], inward[:, k], radius[k])

    def field(self, size):
        """u, v (size, size) of the pixels, -1..1 across the visible field; where tissue is seen; where the cap is."""
        x0, x1, y0, y1, cut, limit = self.border
        at = (np.arange(size, dtype=F) + F(0.5)) / size
        u, v = np.meshgrid((2 * at - x0 - x1) / (x1 - x0), (2 * at - y0 - y1) / (y1 - y0))
        seen = (np.maximum(np.abs(u), np.abs(v)) <= 1) & (np.abs(u) + np.abs(v) <= cut) & (u * u + v * v <= limit**2)
        seen &= ~(self.box & (at[:, None] > 0.64) & (at < 0.28))
        cap = self.cap & seen & (u * u + v * v > 0.8)
        return u, v, seen & ~cap, cap

    def frame(self, rng, size):
        """One frame, float32 (size, size, 3) in [0, 1], and its mask, bool (size, size)."""
        u, v, tissue, cap = self.field(size)
        shown = rng.random() >= self.centre.empty
        solid = self.polyp if shown else self.tube
        for loose in (1, 0.5, 0):  # where the scope moves into the wall, or loses the polyp: move it less
            origin, camera, aim = self.moved(rng, loose, size)
            tool = _tool(u, v, aim) * self.tool
            seen = tissue & (tool == 0)
            hits = look(solid, shown, origin, camera.T @ rays_through(u[seen], v[seen]))
            if solid.gap(origin)[0] > 0.15 and hits[2].any() == shown:
                break
        image, mask = np.empty((size, size, 3), F), np.zeros((size, size), bool)
        image[:], mask[seen] = np.array(self.centre.background, F) / 255, hits[2]
        image[seen] = _painted(rng, self, seen, origin, camera, *hits).T
        grey = np.where(cap, 0.2 + 2.5 * (u * u + v * v - 0.8), tool).clip(0, 0.8)
        hard = (tissue | cap) & ~seen
        image[hard] = grey[hard, None] * self.mean**0.3
        _decorate(self, image, tissue | cap)
        return _recorded(rng, self.blur, image), mask

    def moved(self, rng, loose, size):
        """Another place of the scope, its turn, and where in the field it sees the polyp's foot: amid a pixel."""
        far = np.linalg.norm(self.polyp.base - self.origin)
        origin = self.origin + F(loose * 0.08 * far) * rng.standard_normal((3, 1), F)
        low, high = np.array(self.border[:4]).reshape(2, 2).T
        aim = low + (self.aim + loose * rng.normal(0, 0.08, 2) + 1) / 2 * (high - low)
        aim = ((np.floor(aim * size) + 0.5) / size - low) / (high - low) * 2 - 1
        foot = unit(self.polyp.base - origin)[:, 0]
        return origin, turned(self.camera @ foot, rays_through(*aim[:, None])[:, 0]) @ self.camera, aim


# The picture: what the rays meet, its colour, its light, what the recorder makes of it


def rays_through(u, v):
    """Directions, right, down and forward, of the points u, v of the field, each -1..1: an equidistant lens."""
    x, y = u * ASPECT, v
    radius = np.sqrt(x * x + y * y) + F(1e-6)
    sine = np.sin(LENS * radius) / radius
    return np.stack([sine * x, sine * y, np.cos(LENS * radius)]).astype(F)


def look(solid, shown, origin, rays):
    """What the rays meet: points, normals; whether it is the polyp; how far polyp and wall are apart, in radii."""
    tube = solid.tube if shown else solid
    far = march(tube.gap, origin, rays, 0.05, 30)
    on, edge, near = np.zeros(len(far), bool), np.full(len(far), 99, F), np.zeros(0, int)
    if shown:
        middle = (solid.base + F(0.5) * solid.radius * solid.axes[2:].T - origin)[:, 0]
        along = middle @ rays
        missed = np.sqrt(np.maximum(middle @ middle - along**2, 0))
        near = np.flatnonzero((missed < solid.reach) & (along > -solid.reach))
        start = np.maximum(along[near] - solid.reach, F(0.02))
        far[near] = march(solid.gap, origin, rays[:, near], start, far[near])
    points = origin + far * rays
    inward = normals(tube.gap, points, 0.02)
    if near.size:
        close = points[:, near]
        inward[:, near] = normals(solid.gap, close, 0.03 * solid.radius)
        wall, body = tube.gap(close), solid.body(close)
        on[near], edge[near] = body < wall, np.abs(body - wall) / solid.radius
    return points, inward, on, edge


def _mucosa(video, points, on):
    """Albedo (3, n) of wall and polyp: blotches, vessels, stool; share (n,) of dye; bumps (n,) of the surface."""
    polyp, textures = video.polyp, video.tube.textures
    u, v = video.tube.around(points)[1] * TEXELS, points[2] * TEXELS
    local = polyp.local(points)
    u[on], v[on] = ((local[:2] + np.array([[0.9], [-0.7]], F) * local[2]) * polyp.radius * 2 * TEXELS + 20)[:, on]
    blotches, grain, vessels = fetch(textures, u, v)
    blood = F(0.2) * blotches + np.where(on, 2 * video.pits, F(0.09)) * grain
    blood += np.where(on, F(0.2), F(0.8)) * video.veins * vessels + on * F(video.tint)
    albedo = TISSUE * np.where(on, F(video.pale), 1) * np.exp(-blood * BLOOD)
    albedo += video.stool * np.clip(2 * blotches - 2.6, 0, 0.8) * ~on * (STOOL - albedo)
    far = np.sqrt((local * local).sum(0))
    stain = video.dye * np.clip(F(2.6) - far + F(0.6) * blotches, 0, 1) * np.where(on, F(0.15), F(0.85))
    return albedo, stain, grain * np.where(on, F(video.pits), F(0.12))


def lighting(inward, lamp, edge):
    """Light (n,) on the tissue, which falls off with the distance and is less at the polyp's foot; gloss (n,) of it."""
    distance2 = (lamp * lamp).sum(0)
    shade = np.maximum((inward * lamp).sum(0) / np.sqrt(distance2), 0)
    contact = 1 - F(0.35) * np.exp(-edge / F(0.25))
    return (F(0.2) + F(0.8) * shade) * contact / (distance2 + F(0.05)), F(0.12) * shade**8


def _painted(rng, video, seen, origin, camera, points, inward, on, edge):
    """Colours (3, n) of the points: mucosa, light, exposure, wet highlights."""
    lamp = origin + F(0.06) * camera[:1].T - points
    albedo, stain, bumps = _mucosa(video, points, on)
    inward = unit(inward + bumps * (camera[:1] - camera[1:2]).T)
    light, gloss = lighting(inward, lamp, edge)
    radiance = (albedo + gloss) * light + F(0.05) * albedo**2
    colours = _exposed(radiance, radiance + stain * (DYED * light - radiance), video.mean, video.centre.contrast)
    shine = _shine(rng, video, inward, lamp, camera, seen) * np.clip(3 * colours[0] - F(0.6), 0, F(0.9))
    return colours + shine * (1 - colours)


def _exposed(plain, dyed, mean, contrast):
    """Colours (3, n) of `dyed`, under the exposure and white balance that bring the mean of `plain` to `mean`."""

    def tone(light):
        return np.tanh(light) ** F(0.55 * contrast)

    low, high = np.full((3, 1), -7, F), np.full((3, 1), 9, F)
    for _ in range(14):
        gain = (low + high) / 2
        dark = tone(plain[:, ::16] * np.exp(gain)).mean(1) < mean
        low, high = np.where(dark[:, None], gain, low), np.where(dark[:, None], high, gain)
    return tone(dyed * np.exp(gain))


def _shine(rng, video, inward, lamp, camera, seen):
    """Where (n,) the wet surface mirrors the lamp, 0 to 1; ripples of the film of water tear the highlights up."""
    ripples, where = noise(rng, (128, 128), 1.5, 3, video.fine), noise(rng, (128, 128), 1.5, 1, 8)
    wet = F(video.wet) * np.clip(F(0.4) + where, 0, 1.7)
    tables = np.stack([wet * ripples, wet * np.roll(ripples, 64, (0, 1))])
    tilts = fetch(tables, *(np.argwhere(seen).T.astype(F) * F(128 / len(seen))))
    facing = (unit(inward + camera[:2].T @ tilts) * unit(lamp)).sum(0)
    return np.clip((facing - F(0.98)) / F(0.018), 0, 1)


def _tool(u, v, aim):
    """Brightness (size, size) of a catheter that comes from below towards the polyp, 0 where there is none."""
    start = np.array([0.45, 1.2])
    along = 0.7 * (aim - start)
    part = ((u - start[0]) * along[0] + (v - start[1]) * along[1]) / (along @ along)
    across = ((u - start[0]) * along[1] - (v - start[1]) * along[0]) / np.linalg.norm(along)
    across = across / (0.14 - 0.07 * np.clip(part, 0, 1))
    rounded = 0.25 + 0.7 * np.sqrt(np.clip(1 - (across - 0.3) ** 2, 0, 1))
    return np.where((part < 1) & (np.abs(across) < 1), rounded, 0)


def _decorate(video, image, field):
    """Draw on `image` what the system shows beside the field: lines of text, the box of the scope's position."""
    size = len(image)
    cells, at = np.arange(size) * 100 // size, (np.arange(size) + 0.5) / size
    if video.text:
        rows = np.isin(cells, (4, 8, 12, 14, 28, 31, 40))[:, None]
        image[video.marks[cells][:, cells] & rows & (cells > 1) & (cells < 12) & ~field] = 0.65
    if video.box:
        box = (at[:, None] > 0.64) & (at < 0.28)
        image[box] = np.array([46, 184, 146], F) / 255
        image[box & (np.abs(at - 0.1 - 0.02 * np.sin(14 * at[:, None])) < 0.006) & (at[:, None] > 0.85)] = 0.2
        if video.centre is not CENTRES[4]:
            image[box & (at > 0.14)] = np.array([85, 110, 200], F) / 255


def _recorded(rng, blur, image):
    """The blur of the lens, noise, and the 8 x 8 blocks of the recorder."""
    size, sd = len(image), blur * len(image) / 128
    image = ndimage.gaussian_filter(image, (sd, sd, 0))
    image += F(1.4 / 255) * rng.standard_normal(image.shape, F)
    blocks = np.pad(image, ((0, -size % 8), (0, -size % 8), (0, 0)), "edge")
    whole = blocks.shape
    waves = fft.dctn(blocks.reshape(whole[0] // 8, 8, -1, 8, 3), axes=(1, 3), norm="ortho")
    coarse = F(0.01) * (1 + np.arange(8, dtype=F)[:, None, None, None] + np.arange(8, dtype=F)[:, None])
    image = fft.idctn(np.round(waves / coarse) * coarse, axes=(1, 3), norm="ortho")
    return image.reshape(whole)[:size, :size].clip(0, 1)
