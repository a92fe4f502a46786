"""Reading the episodes of a source, in this process or in many, on this machine or on a cluster.

::

    plan --> Dispatcher --batches--> workers: importer -> checks -> frames held in memory, or part files
                 ^                      |            ^
                 '------- events -------'            |
    in the order of the plan: EpisodeStoreWriter --places--> workers write what they hold into the payload

One process, the journal's only writer, decides where each episode belongs, as soon as the sizes of all before it are
known, and makes it count once its frames are there. So the store is the same whatever the number of workers.
"""
