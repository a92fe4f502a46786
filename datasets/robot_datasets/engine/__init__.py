"""Reading the episodes of a source, in this process or in many, on this machine or on a cluster.

::

    plan --> Dispatcher --batches--> workers: importer -> checks -> part files beside the store
                 ^                      |
                 '------- events -------'
    parts in the order of the plan --> EpisodeStoreWriter (one process, the journal's only writer)

The store is the same whatever the number of workers, because its writer takes the parts in the plan's order.
"""
