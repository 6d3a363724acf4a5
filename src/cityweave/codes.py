"""What the layer `source` of a height model says of a cell."""

from __future__ import annotations

NONE, MEASURED, FILLED, PREDICTED = range(4)
