# host = "fargate": relay serve on ECS instead of the Lambda. Triggers come over HTTPS, by an internal load balancer, and
# are answered at once, so events are in the store faster than by Lambda. Metrics go to CloudWatch by the log, and to
# Prometheus at port 9090.

locals {
  trigger_port = 8080
  ops_port     = 9090
  fargate_ecr  = can(regex("^[0-9]{12}\\.dkr\\.ecr(-fips)?\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/", try(var.fargate.image, "")))

  fargate_environment = merge(local.environment, {
    RELAY_LISTEN     = ":${local.trigger_port}"
    RELAY_OPS_LISTEN = ":${local.ops_port}"
    RELAY_EMF        = "true"
  })

  plugin_cidrs  = local.fargate == 1 ? toset(var.fargate.plugin_cidr_blocks) : toset([])
  plugin_groups = local.fargate == 1 && try(var.fargate.plugin_security_group_id, null) != null ? 1 : 0
}

resource "aws_ecs_cluster" "relay" {
  count = local.fargate

  region = var.aws_region
  name   = var.resource_name
  tags   = var.resource_tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_task_definition" "relay" {
  count = local.fargate

  region                   = var.aws_region
  family                   = var.resource_name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.fargate.cpu)
  memory                   = tostring(var.fargate.memory)
  execution_role_arn       = aws_iam_role.execution[0].arn
  task_role_arn            = aws_iam_role.relay.arn
  tags                     = var.resource_tags

  runtime_platform {
    cpu_architecture        = var.fargate.architecture
    operating_system_family = "LINUX"
  }

  # Secrets do not go by ECS: the relay reads them by ARN, and so notices a rotation without a restart.
  container_definitions = jsonencode([{
    name                   = "relay"
    image                  = var.fargate.image
    command                = ["serve"]
    essential              = true
    readonlyRootFilesystem = true
    linuxParameters        = { initProcessEnabled = false, capabilities = { drop = ["ALL"] } }
    environment            = [for name in sort(keys(local.fargate_environment)) : { name = name, value = local.fargate_environment[name] }]
    portMappings = [
      { containerPort = local.trigger_port, protocol = "tcp" },
      { containerPort = local.ops_port, protocol = "tcp" },
    ]
    # Time to finish the batches in flight.
    stopTimeout = 60
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        "awslogs-group"         = aws_cloudwatch_log_group.relay.name
        "awslogs-region"        = var.aws_region
        "awslogs-stream-prefix" = "relay"
      }
    }
  }])
}

# Two tasks: one has the lease, the other takes over within ten seconds.
resource "aws_ecs_service" "relay" {
  count = local.fargate

  region          = var.aws_region
  name            = var.resource_name
  cluster         = aws_ecs_cluster.relay[0].id
  task_definition = aws_ecs_task_definition.relay[0].arn
  desired_count   = var.fargate.tasks
  launch_type     = "FARGATE"
  propagate_tags  = "SERVICE"
  tags            = var.resource_tags

  network_configuration {
    subnets          = var.existing_subnet_ids
    security_groups  = [aws_security_group.relay.id]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.relay[0].arn
    container_name   = "relay"
    container_port   = local.trigger_port
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  depends_on = [aws_lb_listener.relay, aws_iam_role_policy.relay, aws_iam_role_policy.execution, aws_cloudformation_stack.audit]
}

# What ECS itself does to start a task: pull the image, write the log.
resource "aws_iam_role" "execution" {
  count = local.fargate

  name        = "${var.resource_name}-execution"
  description = "Starts the tasks of the Kong audit relay"
  tags        = var.resource_tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
    }]
  })
}

#tfsec:ignore:aws-iam-no-policy-wildcards -- GetAuthorizationToken knows no resource; the rest names one log group and one repository
resource "aws_iam_role_policy" "execution" {
  count = local.fargate

  name = "execution"
  role = aws_iam_role.execution[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.relay.arn}:*"]
      }],
      local.fargate_ecr ? [
        {
          Sid      = "SignInToECR"
          Effect   = "Allow"
          Action   = ["ecr:GetAuthorizationToken"]
          Resource = ["*"]
        },
        {
          Sid      = "Pull"
          Effect   = "Allow"
          Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
          Resource = [local.fargate_repository_arn]
        },
      ] : [],
    )
  })
}

locals {
  # <account>.dkr.ecr.<region>.amazonaws.com/<repository>[:tag][@digest]
  fargate_reference = local.fargate_ecr ? regex("^(?P<account>[0-9]{12})\\.dkr\\.ecr(?:-fips)?\\.(?P<region>[a-z0-9-]+)\\.[^/]+/(?P<repository>[^:@]+)", var.fargate.image) : null
  fargate_repository_arn = local.fargate_ecr ? join(":", [
    "arn", local.partition, "ecr", local.fargate_reference.region, local.fargate_reference.account, "repository/${local.fargate_reference.repository}",
  ]) : null
}

resource "aws_security_group" "balancer" {
  count = local.fargate

  region      = var.aws_region
  name        = "${var.security_group}-balancer"
  description = "Triggers from the Kong plugin to the audit relay"
  vpc_id      = var.existing_vpc
  tags        = var.resource_tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "balancer_from_range" {
  for_each = local.plugin_cidrs

  region            = var.aws_region
  security_group_id = aws_security_group.balancer[0].id
  description       = "Plugin"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
  tags              = var.resource_tags
}

resource "aws_vpc_security_group_ingress_rule" "balancer_from_group" {
  count = local.plugin_groups

  region                       = var.aws_region
  security_group_id            = aws_security_group.balancer[0].id
  description                  = "Plugin"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = var.fargate.plugin_security_group_id
  tags                         = var.resource_tags
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_relay" {
  for_each = local.fargate == 1 ? { triggers = local.trigger_port, health = local.ops_port } : {}

  region                       = var.aws_region
  security_group_id            = aws_security_group.balancer[0].id
  description                  = "Relay: ${each.key}"
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
  referenced_security_group_id = aws_security_group.relay.id
  tags                         = var.resource_tags
}

resource "aws_vpc_security_group_ingress_rule" "relay_from_balancer" {
  for_each = local.fargate == 1 ? { triggers = local.trigger_port, health = local.ops_port } : {}

  region                       = var.aws_region
  security_group_id            = aws_security_group.relay.id
  description                  = "Load balancer: ${each.key}"
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
  referenced_security_group_id = aws_security_group.balancer[0].id
  tags                         = var.resource_tags
}

resource "aws_lb" "relay" {
  count = local.fargate

  region                     = var.aws_region
  name                       = local.alb_name
  internal                   = true
  load_balancer_type         = "application"
  subnets                    = var.existing_subnet_ids
  security_groups            = [aws_security_group.balancer[0].id]
  drop_invalid_header_fields = true
  tags                       = var.resource_tags
}

resource "aws_lb_listener" "relay" {
  count = local.fargate

  region            = var.aws_region
  load_balancer_arn = aws_lb.relay[0].arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.fargate.certificate_arn
  tags              = var.resource_tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.relay[0].arn
  }
}

# Alive, not ready: a task whose Kong is down must not be killed for it.
resource "aws_lb_target_group" "relay" {
  count = local.fargate

  region               = var.aws_region
  name                 = local.alb_name
  port                 = local.trigger_port
  protocol             = "HTTP"
  target_type          = "ip"
  vpc_id               = var.existing_vpc
  deregistration_delay = "30"
  tags                 = var.resource_tags

  health_check {
    path     = "/healthz"
    port     = tostring(local.ops_port)
    protocol = "HTTP"
    matcher  = "200"
    interval = 10
    timeout  = 5
  }
}

resource "aws_cloudwatch_metric_alarm" "tasks" {
  count = var.alarms ? local.fargate : 0

  region              = var.aws_region
  alarm_name          = "${var.resource_name}-no-task"
  alarm_description   = "No relay is alive behind the load balancer."
  namespace           = "AWS/ApplicationELB"
  metric_name         = "HealthyHostCount"
  dimensions          = { LoadBalancer = aws_lb.relay[0].arn_suffix, TargetGroup = aws_lb_target_group.relay[0].arn_suffix }
  statistic           = "Maximum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 5
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.resource_tags
}
