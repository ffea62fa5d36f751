"""The same traffic under another kernel, setting or load balancer."""

from analyzer.diagnosis.whatif.predict import predict
from analyzer.diagnosis.whatif.suggest import suggested

__all__ = ["predict", "suggested"]
