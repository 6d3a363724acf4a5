"""The colour of every surface point, made from hashed noise in its own coordinates: identical in every view.

Values are reflectances as a display would show them, 0 to about 0.9.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cityweave.synth.noise import hash2, value_noise

# plain integers: kernels cannot read enumerations cheaply (kept equal to scene.Material, Label, Style by a test)
GROUND, WALL, ROOF_TILE, ROOF_FLAT, ROOF_METAL, GLASS, EQUIPMENT, TREE, CAR, DECK, HIDDEN, HEDGE, TRUNK = range(13)
ASPHALT, SIDEWALK, GRASS, PAVING, MARKING, WATER, PATH, GARDEN, PARKING, COURT, SOIL, PITCH = range(12)
PLASTER, BRICK, CONCRETE, CURTAIN, HOUSE, BLANK = range(6)


@njit(cache=True, nogil=True)
def _mix(a, b, t):  # type: ignore[no-untyped-def]
    return a + (b - a) * t


@njit(cache=True, nogil=True)
def _grain(x, y, fine, coarse, seed):  # type: ignore[no-untyped-def]
    """A factor round 1 from three octaves: about 0.35 m, 1.1 m and 4 m."""
    n = (value_noise(x * 2.9, y * 2.9, seed) - 0.5) * fine
    n += (value_noise(x * 0.9 + 7.3, y * 0.9 - 2.1, seed + 1) - 0.5) * 0.8 * fine
    n += (value_noise(x * 0.25 - 1.7, y * 0.25 + 4.4, seed + 2) - 0.5) * coarse
    return 1.0 + n


@njit(cache=True, nogil=True)
def ground_colour(label, x, y, seed):  # type: ignore[no-untyped-def]
    """x, y in the city's CRS, so that the pattern does not move with the box."""
    if label in (GRASS, GARDEN, PITCH):
        dry = value_noise(x / 11.0, y / 11.0, seed + 3)
        patchy = value_noise(x / 2.3, y / 2.3, seed + 4)
        f = _grain(x, y, 0.42, 0.22, seed + 5)
        r, g, b = _mix(0.25, 0.40, dry), _mix(0.35, 0.41, dry), _mix(0.16, 0.24, dry)
        if label == PITCH:  # mown in stripes
            f *= 1.07 if np.floor(0.16 * (0.94 * x + 0.34 * y)) % 2.0 == 0.0 else 0.95
            return 0.27 * f, 0.40 * f, 0.18 * f
        if label == GARDEN and patchy > 0.56:
            t = min((patchy - 0.56) * 6.0, 1.0)
            r, g, b = _mix(r, 0.42, t), _mix(g, 0.36, t), _mix(b, 0.27, t)
        return r * f, g * f, b * f
    if label == WATER:
        f = _grain(x * 0.7, y * 0.7, 0.16, 0.16, seed + 9) * (1.0 + 0.3 * (value_noise(x / 17.0, y / 17.0, seed) - 0.5))
        return 0.15 * f, 0.215 * f, 0.215 * f
    if label in (PATH, SOIL):
        f = _grain(x, y, 0.22, 0.14, seed + 13)
        return 0.62 * f, 0.55 * f, 0.43 * f
    if label == COURT:
        f = _grain(x, y, 0.16, 0.10, seed + 17)
        return 0.52 * f, 0.27 * f, 0.21 * f
    if label in (SIDEWALK, PAVING):
        side = 1.2 if label == SIDEWALK else 2.4
        cx, cy = np.floor(x / side), np.floor(y / side)
        f = _grain(x, y, 0.20, 0.16, seed + 21) * (0.92 + 0.16 * hash2(np.int64(cx), np.int64(cy), seed + 22))
        if x / side - cx < 0.1 or y / side - cy < 0.1:
            f *= 0.90
        if label == SIDEWALK:
            return 0.56 * f, 0.545 * f, 0.51 * f
        return 0.53 * f, 0.49 * f, 0.44 * f
    # asphalt: worn, patched and stained
    f = _grain(x, y, 0.26, 0.20, seed + 31)
    cx, cy = np.floor(x / 5.5), np.floor(y / 7.5)
    repaired = hash2(np.int64(cx), np.int64(cy), seed + 33)
    if repaired > 0.86:
        px, py = x / 5.5 - cx, y / 7.5 - cy
        if 0.15 < px < 0.75 and 0.2 < py < 0.85:
            f *= 0.80 if repaired > 0.93 else 1.14
    f *= 1.0 + 0.22 * (value_noise(x / 23.0, y / 23.0, seed + 35) - 0.5)
    if label == MARKING:
        worn = 0.72 + 0.28 * value_noise(x * 2.0, y * 2.0, seed + 37)
        return 0.80 * worn, 0.80 * worn, 0.77 * worn
    if label == PARKING:
        return 0.40 * f, 0.395 * f, 0.385 * f
    return 0.335 * f, 0.335 * f, 0.34 * f


@njit(cache=True, nogil=True)
def tile_colour(a, b, rgb, seed):  # type: ignore[no-untyped-def]
    """a along the eave, b down the slope, metres."""
    row, col = np.floor(b / 0.42), np.floor(a / 0.36)
    f = 0.86 + 0.28 * hash2(np.int64(col), np.int64(row), seed)
    f *= 1.0 + 0.22 * (value_noise(a / 1.6, b / 1.9, seed + 1) - 0.5)
    f *= 1.0 + 0.22 * (value_noise(a / 5.0, b / 4.0, seed + 2) - 0.5)
    if b / 0.42 - row < 0.22:
        f *= 0.84
    moss = value_noise(a / 2.7 + 9.0, b / 2.2, seed + 3)
    r, g, bl = rgb[0] * f, rgb[1] * f, rgb[2] * f
    if moss > 0.72:
        t = min((moss - 0.72) * 2.0, 0.4)
        r, g, bl = _mix(r, 0.30, t), _mix(g, 0.32, t), _mix(bl, 0.22, t)
    ca, cb = np.floor(a / 4.1), np.floor(b / 3.4)  # roof windows
    if hash2(np.int64(ca), np.int64(cb), seed + 4) > 0.80:
        pa, pb = a - ca * 4.1, b - cb * 3.4
        if 1.2 < pa < 2.2 and 1.0 < pb < 2.3:
            if 1.3 < pa < 2.1 and 1.1 < pb < 2.2:
                return 0.24, 0.29, 0.35
            return 0.22, 0.20, 0.19
    return r, g, bl


@njit(cache=True, nogil=True)
def flat_colour(a, b, rgb, seed):  # type: ignore[no-untyped-def]
    f = _grain(a, b, 0.30, 0.22, seed)
    lane = np.floor(b / 2.0)
    f *= 0.965 + 0.07 * hash2(np.int64(lane), 0, seed + 5)
    if b / 2.0 - lane < 0.09:
        f *= 0.84
    damp = value_noise(a / 6.5, b / 6.5, seed + 6)
    if damp > 0.62:
        f *= 1.0 - min((damp - 0.62) * 1.6, 0.26)
    return rgb[0] * f, rgb[1] * f, rgb[2] * f


@njit(cache=True, nogil=True)
def metal_colour(a, b, rgb, seed):  # type: ignore[no-untyped-def]
    f = _grain(a, b, 0.14, 0.14, seed)
    lane = np.floor(a / 0.9)
    f *= 0.96 + 0.08 * hash2(np.int64(lane), 1, seed + 5)
    if a / 0.9 - lane < 0.15:
        f *= 0.86
    return rgb[0] * f, rgb[1] * f, rgb[2] * f


@njit(cache=True, nogil=True)
def _pane(col, row, u, v, seed):  # type: ignore[no-untyped-def]
    """Glass of one window: dark, a little sky, sometimes a blind or a curtain. u, v in [0, 1] from the lower left."""
    k = hash2(col, row, seed + 51)
    if k > 0.76:  # blind, drawn to some height
        drawn = hash2(col, row, seed + 52)
        if v > 1.0 - drawn:
            return 0.66, 0.63, 0.57
    tone = 0.7 + 0.6 * k + 0.35 * v
    if abs(u - 0.5) < 0.045:
        return 0.55, 0.54, 0.52
    return 0.155 * tone, 0.185 * tone, 0.23 * tone


@njit(cache=True, nogil=True)
def wall_colour(a, h, height, length, style, rgb, seed):  # type: ignore[no-untyped-def]
    """a along the wall from its left end seen from outside turned around, h above the level floors count from."""
    f = _grain(a, h, 0.14, 0.10, seed)
    f *= 1.0 - 0.13 * value_noise(a / 0.8, h / 5.0, seed + 41)  # streaks of rain
    r, g, b = rgb[0] * f, rgb[1] * f, rgb[2] * f
    if style == BLANK or length < 2.4 or height < 2.2:
        seam = np.floor(a / 3.2)
        if a / 3.2 - seam < 0.03:
            r, g, b = r * 0.85, g * 0.85, b * 0.85
        return r, g, b
    if style == BRICK:
        t = 0.88 + 0.24 * hash2(np.int64(np.floor(a / 0.5)), np.int64(np.floor(h / 0.25)), seed + 42)
        r, g, b = r * t, g * t, b * t
    if h > height:  # parapet or gable
        if h < height + 0.25:
            return r * 1.15, g * 1.15, b * 1.15
        if style == HOUSE and abs(a - length / 2) < 0.6 and height + 0.7 < h < height + 1.9:
            return _pane(0, 99, (a - length / 2 + 0.6) / 1.2, (h - height - 0.7) / 1.2, seed)
        return r, g, b
    if h < 0.0:
        return r * 0.7, g * 0.7, b * 0.7
    if style == CURTAIN:
        return _curtain(a, h, r, g, b, seed)
    floors = max(1.0, np.floor(height / 3.2 + 0.4))
    storey = height / floors
    row = min(np.floor(h / storey), floors - 1.0)
    v = h - row * storey
    pitch, wide, low, tall = 2.7, 1.25, 0.85, 1.65
    if style == BRICK:
        pitch, wide, low, tall = 3.1, 1.5, 0.9, 1.5
    elif style == CONCRETE:
        pitch, wide, low, tall = 3.4, 2.6, 0.95, 1.5
    elif style == HOUSE:
        pitch, wide, low, tall = 3.5, 1.35, 0.95, 1.25
    columns = max(1.0, np.floor((length - 0.8) / pitch))
    step = (length - 0.8) / columns
    col = min(max(np.floor((a - 0.4) / step), 0.0), columns - 1.0)
    u = a - 0.4 - (col + 0.5) * step
    i, j = np.int64(col), np.int64(row)
    if row == 0.0 and style != HOUSE and style != CONCRETE and hash2(0, 7, seed + 43) > 0.45:
        return _shop(u, v, step, storey, i, r, g, b, seed)
    if row == 0.0 and hash2(i, 3, seed + 44) > 0.86 and abs(u) < 0.6 and v < 2.25:  # a door
        return 0.30 * f, 0.20 * f, 0.15 * f
    balcony = style != HOUSE and j > 0 and hash2(i, 0, seed + 45) > (0.45 if style == CONCRETE else 0.80)
    if balcony and abs(u) < step * 0.46:
        if v < 1.05:  # railing, lighter or coloured, with posts
            t = 0.9 + 0.16 * hash2(np.int64(np.floor(a / 0.4)), j, seed + 46)
            pale = 0.55 + 0.4 * hash2(1, 1, seed + 47)
            return pale * t, pale * t * 0.98, pale * t * 0.95
        if v > storey - 0.25:
            return r * 0.55, g * 0.55, b * 0.55
        if abs(u) < wide * 0.6 and v < 2.4:
            return _pane(i, j, 0.5 + u / wide / 1.2, (v - 1.05) / 1.35, seed)
        return r * 0.72, g * 0.72, b * 0.72
    if abs(u) < wide / 2 and low < v < low + tall:
        if abs(u) > wide / 2 - 0.11 or v > low + tall - 0.11:
            return 0.74 * f, 0.73 * f, 0.70 * f
        return _pane(i, j, 0.5 + u / wide, (v - low) / tall, seed)
    if low - 0.18 < v <= low and abs(u) < wide / 2 + 0.1:  # sill
        return r * 1.18, g * 1.18, b * 1.18
    if style == CONCRETE and v < 0.18:
        return r * 0.78, g * 0.78, b * 0.78
    if style == PLASTER and v < 0.16 and row > 0.0:
        return r * 1.12, g * 1.12, b * 1.12
    return r, g, b


@njit(cache=True, nogil=True)
def _shop(u, v, step, storey, i, r, g, b, seed):  # type: ignore[no-untyped-def]
    if v > storey - 0.7:  # sign or awning
        k = hash2(i // 2, 5, seed + 48)
        if k < 0.25:
            return 0.55, 0.20, 0.17
        if k < 0.45:
            return 0.20, 0.32, 0.45
        if k < 0.6:
            return 0.72, 0.66, 0.50
        return r * 0.85, g * 0.85, b * 0.85
    if abs(u) < step * 0.42 and v > 0.35:
        return _pane(i, 0, 0.5 + u / step, 0.3, seed)
    return r * 0.75, g * 0.75, b * 0.75


@njit(cache=True, nogil=True)
def _curtain(a, h, r, g, b, seed):  # type: ignore[no-untyped-def]
    """Storeys of glass with a spandrel; panels differ, some reflect more sky."""
    row, col = np.floor(h / 3.7), np.floor(a / 1.5)
    v, u = h / 3.7 - row, a / 1.5 - col
    k = hash2(np.int64(col), np.int64(row), seed + 49)
    wide = hash2(np.int64(np.floor(col / 4.0)), np.int64(row), seed + 50)
    if u < 0.09 or v < 0.04:
        return 0.62 * r + 0.25, 0.62 * g + 0.25, 0.62 * b + 0.25
    if v < 0.28:
        return r * 1.25, g * 1.25, b * 1.25
    t = 0.55 + 0.35 * k + 0.35 * wide
    return r * t, g * t, b * t * 1.04


@njit(cache=True, nogil=True)
def leaf_colour(x, y, z, share, kind, seed):  # type: ignore[no-untyped-def]
    """`share` is the height inside the crown, 0 at its foot."""
    own = hash2(seed, 61, 5)
    clump = value_noise(x * 1.15 + 0.5 * z, y * 1.15 - 0.5 * z, 61)
    leaf = value_noise(x * 3.3 + z, y * 3.3 + z, 62)
    f = (0.72 + 0.35 * clump + 0.30 * (leaf - 0.5)) * (0.70 + 0.38 * share)
    if kind == 1.0:
        return 0.19 * f, 0.29 * f, 0.19 * f
    return _mix(0.21, 0.37, own) * f, _mix(0.33, 0.39, own) * f, _mix(0.15, 0.17, own) * f


@njit(cache=True, nogil=True)
def object_colour(a, b, rgb, seed):  # type: ignore[no-untyped-def]
    f = _grain(a, b, 0.20, 0.08, seed + 71)
    return rgb[0] * f, rgb[1] * f, rgb[2] * f


@njit(cache=True, nogil=True)
def glass_colour(a, b, rgb, seed):  # type: ignore[no-untyped-def]
    if a - np.floor(a) < 0.12 or b / 0.8 - np.floor(b / 0.8) < 0.12:
        return 0.66, 0.67, 0.68
    f = 0.85 + 0.3 * hash2(np.int64(np.floor(a)), np.int64(np.floor(b / 0.8)), seed + 73)
    return rgb[0] * f, rgb[1] * f, rgb[2] * f


@njit(cache=True, nogil=True)
def deck_label(a, b, half):  # type: ignore[no-untyped-def]
    """What covers a bridge; a along it, b across from its middle."""
    if abs(b) > half - 2.4:
        return SIDEWALK
    if abs(b) < 0.13 and a / 7.0 - np.floor(a / 7.0) < 0.46:
        return MARKING
    return ASPHALT
