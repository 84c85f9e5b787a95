"""The vocabulary every part of Roofleet shares: tables, records, services and their encoding."""
