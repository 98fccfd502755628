"""Two DRA drivers with one command line on one real node in one run: ``python -m e2e.bench_peer``.

settings       what both drivers are told to do, by group of cases
drivers        command line and environment of each driver's processes
node           the real node: simulated GPUs, its view of them, processes, what a driver leaves
processes      memory and processor time of a process
serving        a driver at work, from nothing
registrations  when the kubelet has a driver, and when it has none
slices         what is published, and when
claims         claims with an allocation
client         the way to the driver that is registered, for calls like the kubelet's
cases          what is measured
plan           which cases, in which order
figures        what was measured
report         the table
comparison     what both publish and write, field by field
"""
