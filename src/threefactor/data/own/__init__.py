"""One's own data: folders of classes, files of spikes or tensors, data sets of other libraries."""
