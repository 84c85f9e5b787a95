"""Jobs: handed to agents under leases, one at a time for a device, and durable in the store."""
