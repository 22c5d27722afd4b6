"""The result log: finished answers in small durable files, so that nothing is asked twice (`docs/result_log.md`).

`<path>/<call>/p<partition>-<writer>-<first>-<last>-<answers>-<bytes>.parquet` holds identities and answers, and
`<path>/hits/<call>-<number>-<hits>` notes how many answers a task found. Nothing is ever changed in place.
"""
