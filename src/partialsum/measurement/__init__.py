"""What real tensors do to the accumulator: sampled sums of a running model, held against exact ones."""
