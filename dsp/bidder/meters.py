"""The counters and histograms that an engine writes to, looked up once: a batch counts without a name or a label."""

from __future__ import annotations

from dsp.base.metrics import Metrics


class Meters:
    """Views into one `Metrics`; the engine has those of its process, a rehearsal those that nobody reads."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        counter, histogram = metrics.counter, metrics.histogram
        self.requests = counter("dsp_bid_requests_total")
        self.no_bid = counter("dsp_no_bid_total")
        self.bids = counter("dsp_bids_total")
        self.ghosts = counter("dsp_ghost_bids_total").reshape(1)
        self.worth = counter("dsp_bid_surplus_micros_total")
        self.bad = counter("dsp_bad_requests_total")
        self.supply = counter("dsp_supply_refused_total")
        self.shed = counter("dsp_shed_total")
        self.consent = counter("dsp_consent_total")
        self.profiles = counter("dsp_profiles_total")
        self.store_errors = counter("dsp_store_errors_total")
        self.kept = counter("dsp_profiles_kept_total").reshape(1)
        self.frequency = counter("dsp_frequency_total")
        self.imps_dropped = counter("dsp_imps_dropped_total").reshape(1)
        self.stages = histogram("dsp_stage_seconds")
        self.store = histogram("dsp_store_seconds")
        self.request = histogram("dsp_request_seconds")
        self.queue = histogram("dsp_queue_seconds")
        self.batch = histogram("dsp_batch_size")
