"""What is learned: the loss, prediction and metrics of one kind of target."""
