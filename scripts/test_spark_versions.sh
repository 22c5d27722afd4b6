#!/usr/bin/env bash
# The extension's tests on the newest release of each supported Spark line, with the one JAR that the build made.
# Each line gets a small environment of its own in .venvs/ that holds pyspark and borrows the rest from .venv.
set -eu
cd "$(dirname "$0")/.."
borrowed=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for line in ${SPARK_LINES:-4.0 4.1 4.3}; do
  environment=.venvs/spark-$line
  if [ ! -e "$environment/.installed" ]; then
    .venv/bin/python -m venv "$environment"
    "$environment/bin/pip" install --quiet --no-deps "pyspark==$line.*" 'py4j>=0.10.9.7,<0.10.10'
    site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$borrowed')" > "$site/borrowed.pth"
    touch "$environment/.installed"
  fi
  echo "== Spark $("$environment/bin/python" -c 'import pyspark; print(pyspark.__version__)')"
  "$environment/bin/python" -m pytest -q tests/catalyst tests/api "$@"
done
