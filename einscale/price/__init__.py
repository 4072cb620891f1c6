"""What planned programs and plans cost: FLOPs, bytes, seconds and memory, of one point or of many on arrays."""
