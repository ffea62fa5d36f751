"""The same traffic under another kernel, setting or load balancer."""

from analyzer.diagnosis.whatif.predict import predict

__all__ = ["predict"]
