"""Raw RobotCar recordings -> RobotCar's layout: `python3 -m datasets.robotcar`."""
