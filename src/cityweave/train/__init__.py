"""One training loop for all models, made for clusters that take jobs away in the middle."""
