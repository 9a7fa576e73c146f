"""`make test-faults`: real processes under real faults, with devices that remember what they were told."""
