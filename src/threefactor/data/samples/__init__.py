"""What a loaded data set is: samples of each kind with labels."""
