"""What nobody should do to simulated GPUs, done under the compiler's sanitizers: bad arguments, damaged files."""
