"""A changed configuration: what takes effect, what waits."""

from msgspec.structs import replace

from dsp.base.config import Config
from dsp.base.reload import BIDDER_FIXED, changes, reloaded


def test_what_a_running_role_cannot_change_waits_and_the_rest_takes_effect() -> None:
    old = Config()
    new = replace(
        old,
        data_dir="/elsewhere",
        seed=old.seed + 1,
        bidder=replace(old.bidder, queue_limit=77, http_port=9999, grpc_workers=5),
        rta=replace(old.rta, port=9998),
    )
    config, taken, waiting = reloaded(old, new, BIDDER_FIXED)
    assert sorted(taken) == ["bidder.queue_limit", "seed"]
    assert sorted(waiting) == ["bidder.grpc_workers", "bidder.http_port", "data_dir", "rta.port"]
    assert sorted(changes(old, config)) == sorted(taken)


def test_every_setting_said_to_wait_exists() -> None:
    config = Config()
    for name in BIDDER_FIXED:
        value: object = config
        for part in name.split("."):
            value = getattr(value, part)
