"""What everybody needs of the machine: configuration, errors, files, threads and processes."""
