"""Every setting and limit of the system, in one typed tree; one YAML file (or none) overrides the defaults.

`dsp --config FILE`; without it the embedded defaults under one data directory. An unknown or wrong setting is an error
that names file and field. Environment: ``DSP_DATA_DIR`` overrides ``data_dir``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml


class ConfigError(Exception):
    """A configuration file that cannot be used; the message says file, field and what to write instead."""


class BidderConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The hot path."""

    http_host: str = "127.0.0.1"  # address that HTTP and /metrics listen on
    http_port: int = 8080  # POST /bid/{exchange}
    http_workers: int = 1  # processes that serve HTTP, a core each
    grpc_host: str = "127.0.0.1"  # address that gRPC listens on
    grpc_port: int = 8081  # dsp.v1.Bidder
    grpc_workers: int = 1  # processes that serve gRPC, a core each
    grpc_front: str = "native"  # which server: "native" (fast) or "grpcio" (reference)
    cpus: tuple[int, ...] = ()  # pin workers to these, in turn; empty: leave it to the kernel
    max_batch: int = 128  # requests decided at once, at most; never waited for
    queue_limit: int = 2048  # requests waiting in one worker; more are shed with 429 / RESOURCE_EXHAUSTED
    queue_delay_ms: float = 40.0  # a longer queue is cut, to a quarter once that lasts, least worth first; 0: never
    grpc_streams: int = 64  # calls that one gRPC connection may have open: beyond it the caller waits, at no cost here
    connection_max_age_s: float = 300.0  # older connections are asked to come anew, so that new workers get some
    drain_s: float = 10.0  # a worker that ends serves on for so long, at most
    candidates: int = 8  # K: scored line items per imp
    min_bid_micros: int = 10_000  # CPM micros; below this a bid is not worth sending
    metrics_port: int = 8082  # /metrics, /healthz and /readyz of the whole role
    profile_reads: bool = True  # false: bid on context only
    log_decisions: bool = True  # keep what was bid, for training and reports
    sample_s: float = 1.0  # seconds between requests that a worker keeps, scrubbed, for the console's why; 0 none
    snapshot_poll_s: float = 0.25  # how often a worker looks for a new snapshot or model
    client_ip_header: str = ""  # where a proxy in front of HTTP writes who calls ("x-forwarded-for"); empty: no proxy
    vendor_id: int = 1500  # our id in the TCF global vendor list


class ShapingConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Traffic shaping: which requests a bidder does not process, as such never pay for it (`dsp.bidder.shape`)."""

    mode: Literal["none", "watch", "refuse"] = "none"  # watch: learn and report what would be refused
    usd_per_million: Annotated[float, msgspec.Meta(ge=0)] = 0.05  # what processing a million requests costs, all told
    give_up: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.005  # share of the surplus to forgo for less processing
    explore: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.02  # share of those to refuse that is processed to learn
    memory_s: Annotated[float, msgspec.Meta(gt=0)] = 900.0  # what was seen so long ago counts a third


class SystemConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What an exchange is called in ads.txt."""

    exchange: str  # the catalog's name for it
    domain: str


class SupplyConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Supply quality: what files below ``supply/`` keep us from buying (`dsp.bidder.supply`)."""

    reload_s: float = 60.0  # how often they are looked at
    systems: tuple[SystemConfig, ...] = ()  # ad systems of exchanges; without one its ads.txt lines aren't checked
    require_ads_txt: bool = False  # whether a site or app whose ads.txt we don't have is refused, too
    complete_chain: bool = False  # whether a supply chain that says it is incomplete is refused
    least_viewability: float = 0.3  # share of a placement's impressions that are in view
    most_fraud: float = 0.5  # share of them that is held to be no person's
    duplicates_ms: float = 400.0  # within which one impression's copies by other exchanges are known; 0: not looked for
    hop_share: float = 0.05  # of the price that each node of a supply chain is thought to keep


class PartnerConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a mobile measurement partner's postbacks read (`dsp.ledger.partners`): its names of parameters and events."""

    name: str  # as in /m/NAME
    click: str = "click_id"  # our token
    event: str = "event"
    registered: tuple[str, ...] = ()  # its events that mean this stage
    applied: tuple[str, ...] = ()
    approved: tuple[str, ...] = ()
    funded: tuple[str, ...] = ()
    defaulted: tuple[str, ...] = ()
    value: str = ""
    currency: str = ""
    id: str = ""
    secret: str = ""  # a parameter that must be ``password``
    password: str = ""


class LedgerConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Money: grants, notices, books."""

    host: str = "127.0.0.1"  # address it listens on
    port: int = 8090  # notices, totals, metrics
    grpc_port: int = 8091  # where workers sync
    sync_transport: str = "grpc"  # or "http", on ``port``
    worker_host: str = ""  # where workers reach it; empty: ``host``
    public_url: str = "http://127.0.0.1:8090"  # what notice and click URLs start with
    slice_s: float = 1.0  # a grant aims to last about this long
    sync_s: float = 0.25  # how often a worker settles with the ledger
    lease_s: float = 30.0  # a worker that could not sync for so long stops bidding
    skew_s: float = 5.0  # how far clocks may be apart
    database: str = ""  # the books: a postgresql:// URL; empty: SQLite, ledger.db in the data directory
    spool_max_bytes: int = 1 << 30  # notices kept on disk while the database is away
    win_rate_jump: float = 4.0  # a line item whose win rate rises to this many times what it was is stopped; 0: never
    price_jump: float = 4.0  # the same for its average price
    partners: tuple[PartnerConfig, ...] = ()  # mobile measurement partners whose postbacks we take


class AccessConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What one user of the machine may do with people."""

    user: str
    may: tuple[Literal["load", "read", "export", "erase"], ...]


class AudienceConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Who is known: where profiles and frequency are, and who may look at them."""

    store: Literal["lmdb", "aerospike"] = "lmdb"  # lmdb: one machine; aerospike: a cluster
    aerospike_hosts: tuple[str, ...] = ()  # "name:port" of some nodes; the client finds the others
    namespace: str = "dsp"  # of Aerospike
    timeout_ms: int = 10  # of one batched read, at most; less where a bid's deadline leaves less
    ttl_days: int = 0  # Aerospike: how long a profile lives after it was last loaded; 0 for ever
    cache_people: int = 65_536  # hot profiles kept per worker for when the store doesn't answer; 0: none
    cache_s: float = 60.0  # and how old one may be
    bidder_hosts: int = 1  # hosts that bid; with more than one, a cap has one bid in flight per host
    access: tuple[AccessConfig, ...] = ()  # who may do what with people; empty: the owner of the data, everything


class ConsoleConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The marketers' console: REST API and pages."""

    host: str = "127.0.0.1"  # address it listens on
    port: int = 8070  # API and pages
    metrics_port: int = 8071  # /metrics, not for the outside; 0: none
    threads: int = 4  # requests worked on at once
    approval_above: float = 0.0  # US dollars; a campaign with a larger or no total goes live by two people; 0 never
    images_url: str = ""  # https address at which /images of the console is public; without, no picture is uploaded


class StrategyConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A strategy agreed with an RTA platform: a line item by id, and what is answered for it besides yes or no."""

    id: str  # the platform's out_target_id, at most 32 bytes
    line_item: int
    answer: Literal["weight", "cpc", "cpa"] = "weight"


class PlatformConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An RTA platform: it posts to ``/rta/{exchange}``; its strategies are the line items that name this exchange."""

    exchange: str  # the catalog's name for it
    country: str = "CHN"
    utc_offset_min: int = 480
    currency: str = "CNY"  # prices are in hundredths of it
    strategies: tuple[StrategyConfig, ...] = ()  # a line item left out is a strategy by the name of its id
    id_priority: tuple[str, ...] = ()  # dsp.audience.rta_ids.RTA_IDS, best first; empty: all, in our order
    default_accept: bool = False  # what overload, faults and bodies we can't read get
    cache_accept_s: int = 3_600  # how long the platform may keep an answer, by outcome; 0: it is not said
    cache_refuse_s: int = 86_400
    cache_unknown_s: int = 3_600  # a person we don't know yet
    cache_fresh_s: int = 3_600  # somebody in an application: tomorrow's answer is another
    min_price: int = 1  # hundredths a click must be worth
    max_cpc: int = 10_000  # hundredths, the brake on prices
    max_cpa: int = 1_000_000
    experiments: dict[int, Literal["model", "accept", "refuse"]] = {}  # by the platform's exp_id; first hit counts


class RtaConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Real-time API: media platforms ask whether to take a person, and at what price."""

    host: str = "127.0.0.1"  # address it listens on
    port: int = 8083  # POST /rta/{exchange}
    workers: int = 0  # processes that serve it; 0: none
    queue_limit: int = 96  # requests waiting in one worker; more get the platform's default at once
    platforms: tuple[PlatformConfig, ...] = ()  # who asks, and how each is answered


class ArtfConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Agentic RTB Framework: an exchange that hosts this agent asks it for changes to requests and responses."""

    host: str = "127.0.0.1"  # address that gRPC listens on
    port: int = 8084  # com.iabtechlab.bidstream.mutation.services.v1.RTBExtensionPoint
    workers: int = 0  # processes that serve it; 0: none
    exchange: str = ""  # the host: an exchange of the catalog
    token: str = ""  # what the host must send as authorization: Bearer; empty: nothing
    segments: dict[str, str] = {}  # those that the host is told of: our name and the host's; no others ever are
    tmax_ms: float = 5.0  # for a request that names no tmax
    allowance_ms: float = 1.0  # of tmax that the way to the host and back takes
    streams: int = 8  # calls that one connection may have open: more than can be answered within tmax wait at the host
    max_batch: int = 32  # requests decided at once, at most
    queue_limit: int = 256  # requests waiting in one worker, at most; more get no mutations at once


class LogsConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What roles say about themselves on stderr (`dsp.base.logs`)."""

    format: Literal["auto", "json", "text"] = "auto"  # auto: text on a terminal, else one JSON object a line
    level: Literal["debug", "info", "warning", "error"] = "info"  # what is less than this is not written
    burst: int = 10  # lines of one kind a minute that are all written
    sample: int = 100  # of the rest, one in so many, with how many were left out; 0: none


class TracesConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """OpenTelemetry traces of the bidder's batches (`dsp.base.trace`)."""

    endpoint: str = ""  # an OTLP receiver, as in http://collector:4318/v1/traces; empty: no traces
    sample: float = 0.001  # share of the batches that are traced


class RetentionConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How long what is kept; `dsp retain` applies it, `dsp serve` every hour, a bidder to its own log. 0: for ever."""

    decisions_days: float = 120.0  # the decision log: a conversion may come 90 days after its bid
    decisions_gb: float = 100.0  # and at most so much of it, oldest first
    outcomes_days: float = 400.0  # the outcome log, for training
    people_days: float = 180.0  # events of the books say whose they were; at least as long as attribution looks back


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole tree."""

    data_dir: str = "var"  # everything that is kept; DSP_DATA_DIR overrides it
    seed: int = 1  # of the example's people and of training
    bidder: BidderConfig = BidderConfig()
    shaping: ShapingConfig = ShapingConfig()
    supply: SupplyConfig = SupplyConfig()
    ledger: LedgerConfig = LedgerConfig()
    audience: AudienceConfig = AudienceConfig()
    console: ConsoleConfig = ConsoleConfig()
    rta: RtaConfig = RtaConfig()
    artf: ArtfConfig = ArtfConfig()
    logs: LogsConfig = LogsConfig()
    traces: TracesConfig = TracesConfig()
    retention: RetentionConfig = RetentionConfig()

    @property
    def root(self) -> Path:
        """The data directory as a path."""
        return Path(self.data_dir)

    def path(self, *parts: str) -> Path:
        """A path below the data directory."""
        return self.root.joinpath(*parts)


def load_config(file: Path | None = None) -> Config:
    """Read ``file`` (YAML) over the defaults. Raises `ConfigError` with file and field."""
    raw: object = {}
    if file is not None:
        try:
            raw = yaml.safe_load(file.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{file}: {error}") from error
    if isinstance(raw, dict) and "DSP_DATA_DIR" in os.environ:
        raw = {**raw, "data_dir": os.environ["DSP_DATA_DIR"]}
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file or 'defaults'}: {error}") from error
