"""The loop: observe, resolve, plan, apply, record. All I/O around the pure core, wired in one place."""
