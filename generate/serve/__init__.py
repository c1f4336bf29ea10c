"""`corpus serve`: an OpenAI-compatible server over the sampler, and a page to chat in.

`config` has the settings; `protocol` turns a request's JSON into a job; `scheduler` writes the jobs in one running
batch; `answers` puts what is written into the JSON of the protocol; `app` is the web application; `access` refuses
strangers; `server` binds, runs and stops it.
"""
