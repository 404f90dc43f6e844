"""Stage 5, eligibility of a creative: does this ad fit what this imp offers?

Every rule of OpenRTB 2.6 that an exchange checks about format is here: size, attributes, API, mime, protocol, duration,
skippability, secure markup, required native assets. Pure functions over one imp row and one creative row.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.catalog.layout import (
    CR_API,
    CR_ATTR,
    CR_BTYPE,
    CR_DATA,
    CR_DURATION_S,
    CR_H,
    CR_ICON_H,
    CR_ICON_W,
    CR_IMAGE_H,
    CR_IMAGE_W,
    CR_MEDIA,
    CR_MIME,
    CR_PROTOCOL,
    CR_SECURE,
    CR_SKIPPABLE,
    CR_TITLE_LEN,
    CR_W,
)
from dsp.openrtb.columns import (
    ASSET_DATA,
    ASSET_IMG,
    ASSET_TITLE,
    ASSET_WIDTH,
    BANNER,
    I_B_API,
    I_B_BATTR,
    I_B_BTYPE,
    I_B_FLEX,
    I_B_MIMES0,
    I_B_MIMESN,
    I_B_SIZES0,
    I_B_SIZESN,
    I_MEDIA,
    I_N_API,
    I_N_ASSETS0,
    I_N_ASSETSN,
    I_N_BAD,
    I_N_BATTR,
    I_SECURE,
    I_V_API,
    I_V_BATTR,
    I_V_LINEARITY,
    I_V_MAXDUR,
    I_V_MAXEXTENDED,
    I_V_MIMES0,
    I_V_MIMESN,
    I_V_MINDUR,
    I_V_PODDUR,
    I_V_PROTOCOLS,
    I_V_RQDDURS0,
    I_V_RQDDURSN,
    I_V_SKIP,
    NATIVE,
    VIDEO,
)

I64 = npt.NDArray[np.int64]

NON_LINEAR = 2
IMAGE_ICON = 1


@nb.njit(cache=True, inline="always")
def _listed(pool: I64, start: int, count: int, value: int) -> bool:
    """Whether ``value`` is in the list; an empty list admits everything."""
    if count == 0 or value == 0:
        return True
    for k in range(start, start + count):
        if pool[k] == value:
            return True
    return False


@nb.njit(cache=True)
def fits_banner(imp: I64, pool: I64, cr: I64) -> bool:
    """A banner fits if its size is offered (or none is named, or the slot is flexible) and nothing of it is blocked."""
    if (cr[CR_ATTR] & imp[I_B_BATTR]) != 0 or (cr[CR_BTYPE] & imp[I_B_BTYPE]) != 0:
        return False
    if (cr[CR_API] & ~imp[I_B_API]) != 0:
        return False
    if not _listed(pool, imp[I_B_MIMES0], imp[I_B_MIMESN], cr[CR_MIME]):
        return False
    if imp[I_B_FLEX] != 0 or imp[I_B_SIZESN] == 0 or cr[CR_W] == 0:  # 0 x 0: a flexible banner
        return True
    size = (cr[CR_W] << 16) | cr[CR_H]
    for k in range(imp[I_B_SIZES0], imp[I_B_SIZES0] + imp[I_B_SIZESN]):
        if pool[k] == size:
            return True
    return False


@nb.njit(cache=True)
def fits_video(imp: I64, pool: I64, cr: I64) -> bool:
    """A linear video fits if protocol, mime, duration, API and skippability are as asked."""
    if (cr[CR_ATTR] & imp[I_V_BATTR]) != 0 or (cr[CR_API] & ~imp[I_V_API]) != 0:
        return False
    if imp[I_V_PROTOCOLS] != 0 and ((imp[I_V_PROTOCOLS] >> cr[CR_PROTOCOL]) & 1) == 0:
        return False
    if imp[I_V_LINEARITY] == NON_LINEAR or (imp[I_V_SKIP] == 0 and cr[CR_SKIPPABLE] != 0):
        return False
    if not _listed(pool, imp[I_V_MIMES0], imp[I_V_MIMESN], cr[CR_MIME]):
        return False
    duration = cr[CR_DURATION_S]
    if imp[I_V_RQDDURSN] > 0:
        return _listed(pool, imp[I_V_RQDDURS0], imp[I_V_RQDDURSN], duration)
    if duration < imp[I_V_MINDUR]:
        return False
    if imp[I_V_MAXDUR] > 0 and imp[I_V_MAXEXTENDED] >= 0:
        return duration <= imp[I_V_MAXDUR] + imp[I_V_MAXEXTENDED]
    return imp[I_V_PODDUR] <= 0 or duration <= imp[I_V_PODDUR]


@nb.njit(cache=True, inline="always")
def _scales(have_w: int, have_h: int, want_w: int, want_h: int, flags: int) -> bool:
    """Whether an image serves a slot: at least its minimal size, or scaled to its exact one in like proportions."""
    if have_w == 0 or have_h == 0:
        return False
    if (flags & 1) != 0 and have_w < want_w:
        return False
    if (flags & 2) != 0 and have_h < want_h:
        return False
    if (flags & 3) == 0 and want_w > 0 and want_h > 0:
        difference = abs(have_w * want_h - have_h * want_w)
        return difference * 20 <= have_w * want_h  # within 5 %
    return True


@nb.njit(cache=True)
def fits_native(imp: I64, pool: I64, cr: I64) -> bool:
    """A native ad fits if it has every required asset, in length and proportions."""
    if imp[I_N_BAD] != 0 or (cr[CR_ATTR] & imp[I_N_BATTR]) != 0 or (cr[CR_API] & ~imp[I_N_API]) != 0:
        return False
    for a in range(imp[I_N_ASSETSN]):
        at = imp[I_N_ASSETS0] + a * ASSET_WIDTH
        if pool[at + 1] == 0:
            continue
        flags = pool[at + 7]
        kind = pool[at + 2]
        if kind == ASSET_TITLE:
            if cr[CR_TITLE_LEN] == 0 or (pool[at + 4] > 0 and cr[CR_TITLE_LEN] > pool[at + 4]):
                return False
        elif kind == ASSET_IMG:
            if pool[at + 3] == IMAGE_ICON:
                if not _scales(cr[CR_ICON_W], cr[CR_ICON_H], pool[at + 5], pool[at + 6], flags):
                    return False
            elif not _scales(cr[CR_IMAGE_W], cr[CR_IMAGE_H], pool[at + 5], pool[at + 6], flags):
                return False
        elif kind == ASSET_DATA:
            if ((cr[CR_DATA] >> pool[at + 3]) & 1) == 0:
                return False
        else:
            return False
    return True


@nb.njit(cache=True)
def fits(imp: I64, pool: I64, cr: I64) -> bool:
    """Whether creative row ``cr`` may answer imp row ``imp``."""
    if (imp[I_MEDIA] & cr[CR_MEDIA]) == 0 or (imp[I_SECURE] == 1 and cr[CR_SECURE] == 0):
        return False
    if cr[CR_MEDIA] == BANNER:
        return fits_banner(imp, pool, cr)
    if cr[CR_MEDIA] == VIDEO:
        return fits_video(imp, pool, cr)
    if cr[CR_MEDIA] == NATIVE:
        return fits_native(imp, pool, cr)
    return False
