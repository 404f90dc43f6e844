"""The devices people hold: OpenRTB device objects with matching user agent, client hints, make, model and OS.

A device is picked once per person; requests share its dictionary, so a device costs nothing to build per request.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dsp.model.context import BROWSERS, OSES

Json = dict[str, Any]


class Device(NamedTuple):
    """One kind of device: what a request says of it, on the web and in an app."""

    os: int  # OSES index
    browser: int  # BROWSERS index on the web
    devicetype: int  # OpenRTB: 1 mobile or tablet, 2 PC, 3 TV, 4 phone, 5 tablet
    weight: float  # share by default
    premium: float  # owner's income against the median, in log units: expensive phones belong to richer people
    web: Json  # static members of the device object on the web
    app: Json  # and in apps (empty where the device runs none)

    @property
    def has_apps(self) -> bool:
        """Whether app traffic comes from it."""
        return bool(self.app)


def _sua(browsers: list[tuple[str, str]], platform: str, version: str, mobile: int, model: str = "") -> Json:
    """`device.sua` (OpenRTB 2.6 3.2.29) as Chromium's high-entropy client hints give it."""
    sua: Json = {
        "browsers": [{"brand": brand, "version": v.split(".")} for brand, v in browsers],
        "platform": {"brand": platform, "version": version.split(".")},
        "mobile": mobile,
        "source": 2,
    }
    if model:
        sua["model"] = model
    return sua


def _chromium(version: str, brand: str = "Google Chrome") -> list[tuple[str, str]]:
    return [("Chromium", version), (brand, version), ("Not)A;Brand", "99.0.0.0")]


def _iphone(model: str, hw: str, ios: str, size: tuple[int, int], weight: float, premium: float) -> Device:
    underscored = ios.replace(".", "_")
    base: Json = {
        "make": "Apple", "model": model, "hwv": hw, "os": "iOS", "osv": ios, "devicetype": 4,
        "w": size[0], "h": size[1], "pxratio": 3.0, "js": 1,
    }  # fmt: skip
    safari = (
        f"Mozilla/5.0 (iPhone; CPU iPhone OS {underscored} like Mac OS X) AppleWebKit/605.1.15 "
        f"(KHTML, like Gecko) Version/{ios.split('.', maxsplit=1)[0]}.0 Mobile/15E148 Safari/604.1"
    )
    webview = safari.split(" Version/", maxsplit=1)[0] + " Mobile/15E148"
    return Device(
        OSES.index("ios"), BROWSERS.index("safari"), 4, weight, premium, {"ua": safari, **base}, {"ua": webview, **base}
    )


def _android(
    make: str, model: str, osv: str, chrome: str, size: tuple[int, int], weight: float, premium: float
) -> Device:
    base: Json = {
        "make": make, "model": model, "os": "Android", "osv": osv, "devicetype": 4,
        "w": size[0], "h": size[1], "pxratio": 2.75, "js": 1,
    }  # fmt: skip
    web = (
        f"Mozilla/5.0 (Linux; Android {osv}; {model}) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{chrome} Mobile Safari/537.36"
    )
    view = (
        f"Mozilla/5.0 (Linux; Android {osv}; {model} Build/UP1A.231005.007; wv) AppleWebKit/537.36 "
        f"(KHTML, like Gecko) Version/4.0 Chrome/{chrome} Mobile Safari/537.36"
    )
    sua = _sua(_chromium(chrome), "Android", osv + ".0.0", 1, model)
    return Device(
        OSES.index("android"), BROWSERS.index("chrome"), 4, weight, premium,
        {"ua": web, "sua": sua, **base}, {"ua": view, **base},
    )  # fmt: skip


def _pc(
    os: str, brand: str, osv: str, browser: str, ua: str, weight: float, premium: float, sua: Json | None
) -> Device:
    web: Json = {"ua": ua, "os": brand, "osv": osv, "devicetype": 2, "w": 1920, "h": 1080, "pxratio": 1.0, "js": 1}
    if brand == "macOS":
        web["make"] = "Apple"
    if sua is not None:
        web["sua"] = sua
    return Device(OSES.index(os), BROWSERS.index(browser), 2, weight, premium, web, {})


_WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)
_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/"

DEVICES: tuple[Device, ...] = (
    _iphone("iPhone", "iPhone16,1", "17.5.1", (1179, 2556), 9.0, 0.35),
    _iphone("iPhone", "iPhone15,2", "17.4", (1179, 2556), 8.0, 0.25),
    _iphone("iPhone", "iPhone14,5", "16.7.2", (1170, 2532), 9.0, 0.10),
    _iphone("iPhone", "iPhone12,8", "15.8", (750, 1334), 4.0, -0.15),
    _android("Samsung", "SM-S918B", "14", "126.0.6478.122", (1440, 3088), 8.0, 0.25),
    _android("Samsung", "SM-A546B", "14", "125.0.6422.165", (1080, 2340), 10.0, -0.05),
    _android("Samsung", "SM-A146P", "13", "124.0.6367.179", (1080, 2408), 7.0, -0.30),
    _android("Google", "Pixel 8", "14", "126.0.6478.71", (1080, 2400), 4.0, 0.20),
    _android("Xiaomi", "23049PCD8G", "14", "122.0.6261.119", (1220, 2712), 8.0, -0.10),
    _android("HUAWEI", "ALN-AL00", "12", "114.0.5735.196", (1260, 2720), 6.0, 0.15),
    _android("OPPO", "CPH2525", "13", "123.0.6312.118", (1080, 2412), 5.0, -0.15),
    _pc("windows", "Windows", "10", "chrome", _WINDOWS, 11.0, 0.0,
        _sua(_chromium("131.0.6778.86"), "Windows", "15.0.0", 0)),
    _pc("windows", "Windows", "11", "edge", _WINDOWS + " Edg/131.0.0.0", 5.0, 0.08,
        _sua(_chromium("131.0.2903.70", "Microsoft Edge"), "Windows", "15.0.0", 0)),
    _pc("windows", "Windows", "10", "firefox",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0", 3.0, 0.0, None),
    _pc("macos", "macOS", "14.5", "safari", _MAC + "605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
        5.0, 0.35, None),
    _pc("macos", "macOS", "14.2", "chrome", _MAC + "537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        3.0, 0.30, _sua(_chromium("130.0.6723.117"), "macOS", "14.2.0", 0)),
)  # fmt: skip
