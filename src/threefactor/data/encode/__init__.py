"""How samples become what a network takes: spikes, frames, images of one size."""
