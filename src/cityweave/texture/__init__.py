"""Texture: a 2.5D atlas per tile and a bake from the source views that knows what each view can see."""
