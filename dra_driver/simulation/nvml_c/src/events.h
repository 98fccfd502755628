/* Event sets: changes of MIG and XID errors, as they show in the state file (events.py). */
#ifndef GPU_DRA_EVENTS_H
#define GPU_DRA_EVENTS_H

/* The library was shut down: its event sets are gone. Called under the library's lock. */
void events_clear(void);

#endif
