"""Recognition of samples: training samples, and samples that differ from them."""
