"""Stage 5, eligibility of a creative: does this ad fit what this imp offers?

Every rule of OpenRTB 2.6 that an exchange checks about format is here: size, attributes, API, mime, protocol, duration,
skippability, secure markup, required native assets. Pure functions over one imp row and one creative row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel
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
    CR_REFUSED,
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

# --- packed creatives: int64[C, AD_WIDTH] ------------------------------------------------------------------------
# and their shapes, int64[C]: size (w << 16 | h) in the low half, medium, flags, protocol and duration above. Apart,
# because most creatives that are looked at fail by their shape.
(
    AD_ATTR,  # bit per creative attribute
    AD_API_BTYPE,  # bits of API frameworks in the low half, of banner ad types in the high one
    AD_MIME,  # hash
    AD_REFUSED,  # bit per exchange index that doesn't take it
) = range(4)
AD_WIDTH = 4
LOW32 = 0xFFFFFFFF
AD_MEDIA_SHIFT = 32
AD_SECURE = 1 << 36
AD_SKIPPABLE = 1 << 37
AD_PROTOCOL_SHIFT = 40
AD_DURATION_SHIFT = 48

NON_LINEAR = 2
IMAGE_ICON = 1


@inlined
def medium_of(shape: int) -> int:
    """BANNER, VIDEO or NATIVE of a shape."""
    return (shape >> AD_MEDIA_SHIFT) & 15


@inlined
def duration_of(shape: int) -> int:
    """Seconds of a shape."""
    return shape >> AD_DURATION_SHIFT


@inlined
def _listed(pool: I64, start: int, count: int, value: int) -> bool:
    """Whether ``value`` is in the list; an empty list admits everything."""
    if count == 0 or value == 0:
        return True
    for k in range(start, start + count):
        if pool[k] == value:
            return True
    return False


@inlined
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


@kernel
def fits_native(imp: I64, i: int, pool: I64, ad: I64, cr: I64, c: int) -> bool:
    """A native ad fits if it has every required asset, in length and proportions.

    A request whose assets have no ids, or one id twice, cannot be answered: nothing fits it.
    """
    if (
        imp[i, I_N_BAD] != 0
        or (ad[c, AD_ATTR] & imp[i, I_N_BATTR]) != 0
        or (ad[c, AD_API_BTYPE] & LOW32 & ~imp[i, I_N_API]) != 0
    ):
        return False
    for a in range(imp[i, I_N_ASSETSN]):
        at = imp[i, I_N_ASSETS0] + a * ASSET_WIDTH
        if pool[at] < 0:
            return False
        for before in range(imp[i, I_N_ASSETS0], at, ASSET_WIDTH):
            if pool[before] == pool[at]:
                return False
        if pool[at + 1] == 0:
            continue
        flags = pool[at + 7]
        kind = pool[at + 2]
        if kind == ASSET_TITLE:
            if cr[c, CR_TITLE_LEN] == 0 or (pool[at + 4] > 0 and cr[c, CR_TITLE_LEN] > pool[at + 4]):
                return False
        elif kind == ASSET_IMG:
            if pool[at + 3] == IMAGE_ICON:
                if not _scales(cr[c, CR_ICON_W], cr[c, CR_ICON_H], pool[at + 5], pool[at + 6], flags):
                    return False
            elif not _scales(cr[c, CR_IMAGE_W], cr[c, CR_IMAGE_H], pool[at + 5], pool[at + 6], flags):
                return False
        elif kind == ASSET_DATA:
            if ((cr[c, CR_DATA] >> pool[at + 3]) & 1) == 0:
                return False
        else:
            return False
    return True


@inlined
def fits_banner(imp: I64, i: int, pool: I64, shape: int, ad: I64, c: int) -> bool:
    """A banner fits if its size is offered (or none is named, or the slot is flexible) and nothing of it is blocked."""
    size = shape & LOW32
    if imp[i, I_B_FLEX] == 0 and size != 0:  # 0 x 0: a flexible banner
        if not _listed(pool, imp[i, I_B_SIZES0], imp[i, I_B_SIZESN], size):
            return False
    api_btype = ad[c, AD_API_BTYPE]
    if (ad[c, AD_ATTR] & imp[i, I_B_BATTR]) != 0 or ((api_btype >> 32) & imp[i, I_B_BTYPE]) != 0:
        return False
    if (api_btype & LOW32 & ~imp[i, I_B_API]) != 0:
        return False
    return _listed(pool, imp[i, I_B_MIMES0], imp[i, I_B_MIMESN], ad[c, AD_MIME])


@inlined
def fits_video(imp: I64, i: int, pool: I64, shape: int, ad: I64, c: int) -> bool:
    """A linear video fits if protocol, mime, duration, API and skippability are as asked."""
    if (ad[c, AD_ATTR] & imp[i, I_V_BATTR]) != 0 or (ad[c, AD_API_BTYPE] & LOW32 & ~imp[i, I_V_API]) != 0:
        return False
    protocol = (shape >> AD_PROTOCOL_SHIFT) & 63
    if imp[i, I_V_PROTOCOLS] != 0 and ((imp[i, I_V_PROTOCOLS] >> protocol) & 1) == 0:
        return False
    if imp[i, I_V_LINEARITY] == NON_LINEAR or (imp[i, I_V_SKIP] == 0 and (shape & AD_SKIPPABLE) != 0):
        return False
    if not _listed(pool, imp[i, I_V_MIMES0], imp[i, I_V_MIMESN], ad[c, AD_MIME]):
        return False
    duration = duration_of(shape)
    if imp[i, I_V_RQDDURSN] > 0:
        return _listed(pool, imp[i, I_V_RQDDURS0], imp[i, I_V_RQDDURSN], duration)
    if duration < imp[i, I_V_MINDUR]:
        return False
    if imp[i, I_V_MAXDUR] > 0 and imp[i, I_V_MAXEXTENDED] >= 0:
        return duration <= imp[i, I_V_MAXDUR] + imp[i, I_V_MAXEXTENDED]
    return imp[i, I_V_PODDUR] <= 0 or duration <= imp[i, I_V_PODDUR]


@inlined
def fits(imp: I64, i: int, pool: I64, shape: int, ad: I64, cr: I64, c: int) -> bool:
    """Whether creative ``c`` may answer imp ``i`` (a row of ``imp``).

    ``shape`` is the creative's, ``ad`` int64[C, AD_WIDTH] what `pack_ads` made of ``cr`` int64[C, CR_WIDTH].
    """
    medium = medium_of(shape)
    if (imp[i, I_MEDIA] & medium) == 0 or (imp[i, I_SECURE] == 1 and (shape & AD_SECURE) == 0):
        return False
    if medium == BANNER:
        return fits_banner(imp, i, pool, shape, ad, c)
    if medium == VIDEO:
        return fits_video(imp, i, pool, shape, ad, c)
    if medium == NATIVE:
        return fits_native(imp, i, pool, ad, cr, c)
    return False


def pack_ads(cr: I64) -> tuple[I64, I64]:
    """(shapes int64[C], int64[C, AD_WIDTH]): what the fit rules read of int64[C, CR_WIDTH] creatives."""
    ad = np.zeros((len(cr), AD_WIDTH), np.int64)
    shape: I64 = (
        (cr[:, CR_W] << 16 | cr[:, CR_H]) & LOW32
        | cr[:, CR_MEDIA] << AD_MEDIA_SHIFT
        | np.where(cr[:, CR_SECURE] != 0, AD_SECURE, 0)
        | np.where(cr[:, CR_SKIPPABLE] != 0, AD_SKIPPABLE, 0)
        | (cr[:, CR_PROTOCOL] & 63) << AD_PROTOCOL_SHIFT
        | np.minimum(cr[:, CR_DURATION_S], 32_767) << AD_DURATION_SHIFT
    )
    ad[:, AD_ATTR] = cr[:, CR_ATTR]
    ad[:, AD_API_BTYPE] = (cr[:, CR_API] & LOW32) | cr[:, CR_BTYPE] << 32
    ad[:, AD_MIME] = cr[:, CR_MIME]
    ad[:, AD_REFUSED] = cr[:, CR_REFUSED]
    return shape, ad
