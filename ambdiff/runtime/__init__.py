"""What a run stands on, whichever method it trains.

sharding.py, hosts.py         devices and processes
checkpoint.py, integrity.py, weights_file.py, weights_place.py    what is kept, and whether it is whole
faults.py                     signals, second runs, bad steps
memory.py, flops.py, metric_writer.py           how much, how fast, how it goes
"""
