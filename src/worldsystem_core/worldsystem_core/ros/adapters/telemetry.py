# SPDX-License-Identifier: Apache-2.0
"""Satellite, barometer, battery and odometry measurements: a few a second."""

from __future__ import annotations

import math

from nav_msgs.msg import Odometry
from sensor_msgs.msg import BatteryState, FluidPressure, NavSatFix, NavSatStatus

from worldsystem_core.ros.adapters.inertial import BODY_FRAME
from worldsystem_core.ros.adapters.messages import MessageAdapter, nanoseconds, time_message
from worldsystem_core.telemetry import (
    BatterySample,
    GpsFix,
    OdometrySample,
    PressureSample,
)

_LEVEL_FRAME = "sender_level"
_UNKNOWN = -1.0  # a variance that is not known, beside one that is
_CHARGING = {
    None: BatteryState.POWER_SUPPLY_STATUS_UNKNOWN,
    True: BatteryState.POWER_SUPPLY_STATUS_CHARGING,
    False: BatteryState.POWER_SUPPLY_STATUS_DISCHARGING,
}


def _fix(item: GpsFix) -> list[NavSatFix]:
    message = NavSatFix(
        latitude=item.latitude_deg, longitude=item.longitude_deg, altitude=item.altitude_m
    )
    message.header.stamp = time_message(item.stamp_ns)
    message.header.frame_id = BODY_FRAME
    message.status.status = NavSatStatus.STATUS_FIX
    message.status.service = NavSatStatus.SERVICE_GPS
    east = item.horizontal_error_m**2 / 2
    up = item.vertical_error_m**2
    if math.isfinite(east) or math.isfinite(up):
        east, up = (value if math.isfinite(value) else _UNKNOWN for value in (east, up))
        message.position_covariance[0] = message.position_covariance[4] = east
        message.position_covariance[8] = up
        message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_APPROXIMATED
    return [message]


def _gps_fix(message: NavSatFix) -> GpsFix:
    known = math.isfinite(message.latitude) and math.isfinite(message.longitude)
    if message.status.status < NavSatStatus.STATUS_FIX or not known:
        raise ValueError("the receiver has no fix")
    east, up = message.position_covariance[0], message.position_covariance[8]
    told = message.position_covariance_type != NavSatFix.COVARIANCE_TYPE_UNKNOWN
    return GpsFix(
        stamp_ns=nanoseconds(message.header.stamp),
        latitude_deg=message.latitude,
        longitude_deg=message.longitude,
        altitude_m=message.altitude,
        horizontal_error_m=math.sqrt(2 * east) if told and east >= 0 else math.nan,
        vertical_error_m=math.sqrt(up) if told and up >= 0 else math.nan,
    )


def _pressure(item: PressureSample) -> list[FluidPressure]:
    message = FluidPressure(fluid_pressure=item.pressure_pa)
    message.header.stamp = time_message(item.stamp_ns)
    message.header.frame_id = BODY_FRAME
    return [message]


def _pressure_sample(message: FluidPressure) -> PressureSample:
    if not math.isfinite(message.fluid_pressure):
        raise ValueError("the pressure is not known")
    return PressureSample(
        stamp_ns=nanoseconds(message.header.stamp), pressure_pa=message.fluid_pressure
    )


def _battery(item: BatterySample) -> list[BatteryState]:
    message = BatteryState(
        voltage=item.voltage_v,
        temperature=item.temperature_c,
        current=item.current_a,
        charge=math.nan,
        capacity=math.nan,
        design_capacity=math.nan,
        percentage=item.charge,
        power_supply_status=_CHARGING[item.charging],
        present=True,
    )
    message.header.stamp = time_message(item.stamp_ns)
    message.header.frame_id = BODY_FRAME
    return [message]


def _battery_sample(message: BatteryState) -> BatterySample:
    by_status = {status: charging for charging, status in _CHARGING.items()}
    return BatterySample(
        stamp_ns=nanoseconds(message.header.stamp),
        charge=message.percentage,
        voltage_v=message.voltage,
        current_a=message.current,
        temperature_c=message.temperature,
        charging=by_status.get(message.power_supply_status),
    )


def _odometry(item: OdometrySample) -> list[Odometry]:
    message = Odometry(child_frame_id=BODY_FRAME)
    message.header.stamp = time_message(item.stamp_ns)
    message.header.frame_id = _LEVEL_FRAME
    at, to = message.pose.pose.position, message.pose.pose.orientation
    at.x, at.y, at.z = item.position_m
    to.x, to.y, to.z, to.w = item.level_from_body
    if math.isfinite(item.position_error_m):
        for axis in range(3):
            message.pose.covariance[7 * axis] = item.position_error_m**2
    return [message]


def _odometry_sample(message: Odometry) -> OdometrySample:
    at, to = message.pose.pose.position, message.pose.pose.orientation
    variance = message.pose.covariance[0]
    return OdometrySample(
        stamp_ns=nanoseconds(message.header.stamp),
        position_m=(at.x, at.y, at.z),
        level_from_body=(to.x, to.y, to.z, to.w),
        position_error_m=math.sqrt(variance) if variance > 0 else math.nan,
    )


GPS = MessageAdapter(NavSatFix, _fix, _gps_fix)
PRESSURE = MessageAdapter(FluidPressure, _pressure, _pressure_sample)
BATTERY = MessageAdapter(BatteryState, _battery, _battery_sample)
ODOMETRY = MessageAdapter(Odometry, _odometry, _odometry_sample)
