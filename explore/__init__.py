"""Reports and, later, sweeps over design spaces."""
