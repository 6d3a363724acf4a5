"""Pictures of a city taken from above -> one height model and one textured, watertight 3D city."""

__version__ = "0.1.0"
