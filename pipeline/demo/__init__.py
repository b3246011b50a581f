"""The avatar world: a small, fully known stand-in for a face data set and its pretrained models."""
