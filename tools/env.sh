#!/usr/bin/env bash
# The environment of the workspace. Source it, or put a command behind it:
#   source tools/env.sh            then: worldsystem run clip.mp4
#   tools/env.sh worldsystem run clip.mp4
_worldsystem_root="$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]:-$0}")/.." >/dev/null && pwd)"
if [ ! -f "$_worldsystem_root/.venv/worldsystem-env.sh" ]; then
  echo "WorldSystem is not set up yet: run 'make setup' first" >&2
  return 1 2>/dev/null || exit 1
fi
. "$_worldsystem_root/.venv/worldsystem-env.sh" || { return 1 2>/dev/null || exit 1; }
# rclpy serves loopback only, through the shipped Fast DDS profile (docs/decisions/002).
export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$_worldsystem_root/config/fastdds.xml}"
export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE:-$_worldsystem_root/config/fastdds.xml}"
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-SYSTEM_DEFAULT}"
if [ -n "${BASH_VERSION-}" ] && [ "${BASH_SOURCE[0]}" = "$0" ]; then
  exec "$@"
fi
