"""One's own data: folders of classes, files of spikes, files of tensors."""
