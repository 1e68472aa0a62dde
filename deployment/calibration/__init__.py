"""Calibration: what this machine takes for the kernels of networks, measured and fitted."""

from kneepoint.deployment.calibration.calibrator import Calibrated, calibrate
from kneepoint.deployment.calibration.campaign import Campaign, Progress

__all__ = ["Calibrated", "Campaign", "Progress", "calibrate"]
