"""What is learned: what is measured of predictions, which number is the headline, and what chance would reach."""
