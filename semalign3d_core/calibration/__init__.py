"""What alignments of training images teach: confidence, keypoint bias, symmetry. Stands above category and alignment."""
