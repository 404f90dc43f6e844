"""Every metric, alert, setting, command and route is documented, in words, on a page that is up to date."""

from documented import commands, metric_names, routes, settings

from k8s import reference

PAGE = reference.PAGE.read_text()
HINT = "say what it is where it is defined, then run `make reference`"


def test_every_setting_is_documented() -> None:
    words = {name: text for name, _, text in reference.settings()}
    for name, where in settings():
        assert f"`{name}`" in PAGE, f"{name}: {HINT}"
        assert words[name], f"{where} has no comment at the end of its line: {HINT}"


def test_every_command_is_documented() -> None:
    for name, text in commands():
        assert f"`{name}` | {text[:40]}".strip() in PAGE, f"{name}: {HINT}"
        assert len(text) > 10, f"{name}: {HINT}"


def test_every_metric_is_documented() -> None:
    for name in metric_names():
        base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        assert f"`{name}`" in PAGE or f"`{base}`" in PAGE, f"{name}: {HINT}"


def test_every_route_is_documented() -> None:
    for route in routes():
        assert route in PAGE, f"{route}: add it to ROUTES in k8s/reference.py"


def test_the_page_is_what_the_program_says() -> None:
    assert reference.page() == PAGE, "run `make reference`"
