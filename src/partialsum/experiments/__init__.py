"""Does it learn: data, a runner that survives being killed, sweeps, and the experiments' results."""
