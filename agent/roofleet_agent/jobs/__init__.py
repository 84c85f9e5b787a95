"""Jobs on an agent: what its rules allow, run in processes of their own while their leases hold."""
