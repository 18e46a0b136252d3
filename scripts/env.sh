# Source it in bash to use what "make setup" built:  . scripts/env.sh
# (the virtual environment first, then the built package on top of it)

_root="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)"
if [ -n "${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ]; then
  # Set by the ROS wheels of the environment this shell was started from; ours sets both anew.
  unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
fi
. "$_root/.venv/bin/activate"
export AMENT_PREFIX_PATH="$VIRTUAL_ENV"
case $- in
  *u*) set +u; . "$_root/install/setup.bash"; set -u ;;
  *) . "$_root/install/setup.bash" ;;
esac
export PYTHONPATH="$_root${PYTHONPATH:+:$PYTHONPATH}" # what is edited here counts at once, not what was last installed
unset _root
